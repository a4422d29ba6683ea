"""NumPy as a backend, with its own versions of the operations that profit."""
