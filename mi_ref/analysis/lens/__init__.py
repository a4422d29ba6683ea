"""The logit lens: what the model would predict after each layer."""
