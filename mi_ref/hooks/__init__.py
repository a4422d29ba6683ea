"""What can be looked at in a forward pass, how it is named, and what a call keeps of it."""
