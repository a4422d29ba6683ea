"""Whole numbers as callers give them, of Python or of an array library."""

from __future__ import annotations

from operator import index
from typing import Any


def whole_number(number: Any) -> int:
    """Return a whole number as Python's own.

    Unlike `operator.index` it refuses true and false, those of array libraries too: NumPy before
    2.3 takes its own for 1 and 0, and a mask would pass as positions.

    Raises
    ------
    TypeError
        If it is not a whole number.
    """
    own = number.tolist() if hasattr(number, "tolist") else number
    if isinstance(own, bool):
        raise TypeError(f"{number!r} is a truth value, not a whole number")
    return index(own)
