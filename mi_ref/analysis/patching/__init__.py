"""Which activation of one prompt, put into another, carries the answer."""
