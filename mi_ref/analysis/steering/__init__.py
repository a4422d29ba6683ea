"""Directions added to the residual stream, dose by dose."""
