"""What a model computes in: its dtype and device, whatever its weights are stored in."""

from __future__ import annotations

from dataclasses import dataclass

from mi_ref._typing import Array, DType
from mi_ref.backend import Backend


@dataclass(frozen=True, slots=True)
class Compute:
    """The dtype and the device of every activation."""

    dtype: DType
    device: object
    """As the arrays of the library say it: ``"cpu"`` for NumPy's, where ``backend.device`` is
    None."""

    @classmethod
    def on(cls, backend: Backend, dtype: DType) -> Compute:
        """Return what computing in a dtype means on a backend."""
        made = backend.xp.empty((0,), dtype=dtype, device=backend.device)
        return cls(made.dtype, made.device)

    @property
    def dtype_name(self) -> str:
        """The dtype's name without that of its library: ``"float32"``."""
        return str(self.dtype).rpartition(".")[2]

    def array(self, backend: Backend) -> Array:
        """Return an array without entries, of the type, dtype and device of every activation."""
        return backend.xp.empty((0,), dtype=self.dtype, device=self.device)
