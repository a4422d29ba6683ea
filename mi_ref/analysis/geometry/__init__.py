"""The shape of activations: components, probes, positions, helices."""
