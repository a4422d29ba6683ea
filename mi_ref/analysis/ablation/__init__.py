"""What breaks when a part is removed, on one prompt or on many."""
