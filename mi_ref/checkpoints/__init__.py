"""From a name to the parts of a model: find, open, recognise, check, read."""
