"""NumPy: the default backend, and the template for others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mi_ref.backend import Backend
from mi_ref.errors import BackendError
from mi_ref.ops import standard_ops

_erf_ufunc = np.frompyfunc(math.erf, 1, 1)


def backend(device: str | int | None = None) -> Backend:
    """Return the NumPy backend; its only device is the CPU."""
    if device not in (None, "cpu"):
        raise BackendError(
            f"NumPy runs on the CPU, not on device {device!r}; backend='cupy' runs on a GPU."
        )
    return Backend(
        name="numpy",
        device=None,
        xp=np,
        from_host=np.asarray,
        to_host=np.asarray,
        ops=standard_ops(np, erf),
        version=np.__version__,
    )


def erf(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the error function, which NumPy lacks, exact to the last digit but one."""
    return np.asarray(_erf_ufunc(x), dtype=x.dtype)
