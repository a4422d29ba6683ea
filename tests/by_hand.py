"""Computations in plain NumPy that tests compare with the library's numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from mi_ref import Model


def host(model: Model, x: Any) -> Any:
    """Return one of the model's arrays as NumPy's."""
    return model.backend.to_host(x)


def log_probs(logits: Any) -> Any:
    """Return natural logarithms of the probabilities along the last axis, in float64."""
    x = np.asarray(logits, dtype=np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.sum(np.exp(x), axis=-1, keepdims=True))


def equal(a: Any, b: Any) -> bool:
    """Whether two arrays have one shape and the same values."""
    return bool(np.array_equal(a, b))
