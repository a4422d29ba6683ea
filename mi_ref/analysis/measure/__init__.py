"""Measures of predictions: metrics, divergences, comparisons of two runs."""

from __future__ import annotations

import lazy_loader

# `mi_ref.analysis.metrics` is this room's module, loaded on first use.
__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["metrics"])
