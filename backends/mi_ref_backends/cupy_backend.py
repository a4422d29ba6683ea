"""CuPy: NVIDIA GPUs. Needs the extra ``mi_ref[cuda12]`` or ``mi_ref[cuda13]``."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from mi_ref.backend import Backend
from mi_ref.errors import BackendError
from mi_ref.ops.ops import standard_ops


def backend(device: str | int | None = None) -> Backend:
    """Return the CuPy backend on one GPU.

    Parameters
    ----------
    device : str, int or None
        ``0``, ``"1"``, ``"cuda"``, ``"cuda:1"``; None for CuPy's current device.

    Raises
    ------
    BackendError
        If CuPy is not installed, or there is no such GPU.
    """
    cupy, xp, special = _libraries()
    number = _number(device, cupy)
    chosen = cupy.cuda.Device(number)
    # CuPy creates arrays on the current device: from here on this one, for this thread.
    chosen.use()

    def from_host(array: Any) -> Any:
        return cupy.asarray(array)

    return Backend(
        name="cupy",
        device=chosen,
        xp=xp,
        from_host=from_host,
        to_host=cupy.asnumpy,
        ops=standard_ops(xp, special.erf),
        version=cupy.__version__,
    )


def _libraries() -> tuple[ModuleType, ModuleType, ModuleType]:
    try:
        import cupy
        import cupyx.scipy.special as special
        from array_api_compat import cupy as xp
    except ImportError as error:
        raise BackendError(
            f"backend 'cupy' cannot be loaded: {error}. Install it with"
            " pip install 'mi_ref[cuda12]', or 'mi_ref[cuda13]' for CUDA 13."
        ) from error
    return cupy, xp, special


def _number(device: str | int | None, cupy: ModuleType) -> int:
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"backend 'cupy' finds no usable GPU: {error}.") from error
    if device is None:
        return int(cupy.cuda.Device().id)
    text = str(device).removeprefix("cuda").removeprefix(":")
    number = int(text) if text.isdigit() else 0 if text == "" else -1
    if not 0 <= number < count:
        raise BackendError(f"no GPU {device!r}: expected a number from 0 to {count - 1}.")
    return number
