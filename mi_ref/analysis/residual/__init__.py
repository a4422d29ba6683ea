"""Who writes the residual stream and the logits."""
