"""Measures of predictions: metrics, divergences, comparisons of two runs."""
