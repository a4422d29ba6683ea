"""Where array libraries plug in: one frozen value per library and device.

The core computes with ``backend.xp`` (an array API namespace) and ``backend.ops`` (the few
operations that are worth a version for each library). It never imports an array library: backends
are found by name through the entry-point group ``mi_ref.backends``, and they import this module.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

from mi_ref._typing import Array, DType, Namespace
from mi_ref.errors import BackendError
from mi_ref.ops.ops import Ops

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

DTYPES = ("float32", "float64")
"""The dtypes that a forward pass can run in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """An array library on a device."""

    name: str
    device: object
    """The library's own device object; None if it has only one device."""
    xp: Namespace
    """Its array API namespace."""
    from_host: Callable[[Array], Array]
    """Turns a NumPy array into the library's, without a copy if both live in main memory."""
    to_host: Callable[[Array], Array]
    """Turns the library's array into NumPy's."""
    ops: Ops
    """The operations, in their array API form or in a faster one of the library's own."""
    version: str
    """The array library's version, for records."""
    _asked_for: tuple[str, str | int | None] | None = field(
        init=False, default=None, repr=False, compare=False
    )
    """Name and device by which `get_backend` makes it again; None for a value made by hand."""

    def dtype(self, name: str) -> DType:
        """Return the namespace's dtype called `name`.

        Raises
        ------
        BackendError
            If forward passes do not run in it.
        """
        if name not in DTYPES:
            raise BackendError(
                f"dtype {name!r}: a forward pass runs in {' or '.join(DTYPES)}."
                " bfloat16 and float16 checkpoints load exactly into either."
            )
        return getattr(self.xp, name)

    def __copy__(self) -> Backend:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backend:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._asked_for is None:
            raise BackendError(
                f"this backend, {self.name!r}, was made by hand, so no other process can make it"
                " again, and neither it nor what holds it can be pickled. Use one that"
                " mi_ref.get_backend returns; see backends/README.md for how to install your own."
            )
        return _made_again, self._asked_for


@cache
def _made_again(name: str, device: str | int | None) -> Backend:
    """Return the backend that unpickled values share: one per process and device."""
    return get_backend(name, device)


def available_backends() -> dict[str, EntryPoint]:
    """Return the installed backends by name."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group="mi_ref.backends")}


def get_backend(backend: str | Backend, device: str | int | None = None) -> Backend:
    """Return a backend by name, ready on `device`.

    Parameters
    ----------
    backend : str or Backend
        ``"numpy"``, ``"cupy"``, the name of another that is installed, or a `Backend`, which is
        returned as it is.
    device : str, int or None
        The library's name or number of the device; None for its default.

    Raises
    ------
    BackendError
        If no such backend is installed, or the library or the device is missing.
    """
    if isinstance(backend, Backend):
        return backend
    found = available_backends()
    if backend not in found:
        raise BackendError(f"no backend named {backend!r}; installed: {', '.join(sorted(found))}.")
    make: Callable[[str | int | None], Backend] = found[backend].load()
    made = make(device)
    # The device that was current is not current everywhere: CuPy's devices have a number.
    number = getattr(made.device, "id", None) if device is None else device
    object.__setattr__(made, "_asked_for", (backend, number))
    return made
