"""How a model recalls facts, over one pair of prompts or a file of them."""
