"""Recurrent models: what is in the state, who reads it, and loops over layers."""
