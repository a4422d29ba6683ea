"""Shapes as types: for type checkers and the test suite; plain text at run time."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

Array: TypeAlias = Any
"""An array of whatever library the backend brings."""

DType: TypeAlias = Any
"""A dtype object of the backend's namespace."""

Namespace: TypeAlias = Any
"""An array API namespace, the ``xp`` of the core code."""

# The test suite loads jaxtyping before mi_ref and so has every annotation below checked; users
# never pay for its import, because annotations are not evaluated.
if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool as Bool, Float as Float, Int as Int

    Residual: TypeAlias = Float[Array, "batch pos d_model"]
else:
    Bool = Float = Int = Residual = object
