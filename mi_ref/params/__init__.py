"""Weights as the forward pass reads them, and as TransformerLens shows them."""
