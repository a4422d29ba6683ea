"""Reading a checkpoint's tensors as linear maps, norms and other parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from mi_ref._typing import Array, Namespace
from mi_ref.config.decoder import NormKind, RMSNorm
from mi_ref.families.reading.weight_names import Fused, Module, WeightNames
from mi_ref.params.params import Linear, Norm

Load: TypeAlias = Callable[[str], Array]


@dataclass(frozen=True, slots=True)
class TensorReader:
    """A checkpoint's tensors under the names of its family."""

    names: WeightNames
    load: Load
    """Returns the backend's array for a tensor name."""
    available: Collection[str]
    """The names of all tensors."""
    xp: Namespace

    def linear(self, path: str) -> Linear:
        """Return the linear map stored at `path`."""
        weight = self.load(f"{path}.weight")
        return Linear(weight.mT if self.names.transposed else weight, self.bias(path))

    def bias(self, path: str) -> Array | None:
        """Return the bias stored at `path`; None if there is none."""
        return self.load(f"{path}.bias") if f"{path}.bias" in self.available else None

    def norm(self, path: str, kind: NormKind) -> Norm:
        """Return the norm stored at `path`."""
        weight = self.load(f"{path}.weight")
        offset = isinstance(kind, RMSNorm) and kind.unit_offset
        return Norm(weight + 1.0 if offset else weight, self.bias(path))

    def parameter(self, slot: str, number: int) -> Array:
        """Return a parameter of a block that is not a module's weight or bias."""
        stored = self.names.stored[slot]
        return stored.part_of(self.load(self.names.stored_path(slot, number)))

    def is_fused(self, slot: str) -> bool:
        """Whether a module shares its tensor with others."""
        return any(slot in fused.slots for fused in self.names.fused)

    def split(
        self, whole: Linear, fused: Fused, parts: list[Module], d_head: int
    ) -> dict[tuple[str, int], Linear]:
        """Split a fused linear map into its parts, along the outputs.

        Parameters
        ----------
        whole : Linear
            The fused map.
        fused : Fused
            How its parts are arranged.
        parts : list of Module
            The parts, in their order.
        d_head : int
            Width of a head, by which interleaved parts alternate.
        """
        linears = {}
        start = 0
        for index, part in enumerate(parts):
            width = part.out[1]

            def cut(
                x: Array, index: int = index, start: int = start, stop: int = start + width
            ) -> Array:
                if fused.per_head:
                    return self._interleaved(x, index, len(parts), (stop - start) // d_head)
                return x[start:stop, ...]

            bias = None if whole.bias is None else cut(whole.bias)
            linears[part.slot, 0] = Linear(cut(whole.weight), bias)
            start += width
        return linears

    def _interleaved(self, x: Array, index: int, n_parts: int, n_heads: int) -> Array:
        """Return one of several parts that alternate by head: [head * part * d_head, …]."""
        rest = x.shape[1:]
        by_head = self.xp.reshape(x, (n_heads, n_parts, -1, *rest))
        return self.xp.reshape(by_head[:, index, ...], (-1, *rest))
