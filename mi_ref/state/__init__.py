"""What earlier tokens leave behind for later ones, as a value."""
