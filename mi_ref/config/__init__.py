"""The structure of a model as data, without a family's name."""
