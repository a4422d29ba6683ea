"""A checkpoint's tensors, found by the names that its family gives them."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from mi_ref._typing import Array, Namespace
from mi_ref.config import Layer, NormKind, RMSNorm
from mi_ref.params import Linear, Norm
from mi_ref.weight_names import Fused, Module, WeightNames

Take: TypeAlias = Callable[[str], Array]


@dataclass(frozen=True, slots=True)
class Taker:
    """A checkpoint's tensors by the names of its family."""

    names: WeightNames
    take: Take
    available: Collection[str]
    xp: Namespace

    def parameter(self, slot: str, number: int) -> Array:
        """Return a block's parameter that is no module's."""
        stored = self.names.stored[slot]
        return stored.take(self.take(self.names.stored_path(slot, number)))

    def linear(self, path: str) -> Linear:
        """Return the module stored at `path`."""
        weight = self.take(f"{path}.weight")
        return Linear(weight.mT if self.names.transposed else weight, self.bias(path))

    def bias(self, path: str) -> Array | None:
        """Return the bias stored at `path`, if there is one."""
        return self.take(f"{path}.bias") if f"{path}.bias" in self.available else None

    def norm(self, path: str, kind: NormKind) -> Norm:
        """Return the norm stored at `path`."""
        weight = self.take(f"{path}.weight")
        offset = isinstance(kind, RMSNorm) and kind.unit_offset
        return Norm(weight + 1.0 if offset else weight, self.bias(path))

    def split(
        self, whole: Linear, fused: Fused, parts: list[Module], layer: Layer
    ) -> dict[tuple[str, int], Linear]:
        """Cut a fused module into its parts, along the outputs."""
        split = {}
        start = 0
        for place, part in enumerate(parts):
            width = part.out[1]
            if fused.per_head:
                n_heads = width // layer.attn.d_head
                cut = partial(self._turns, place=place, n_parts=len(parts), n_heads=n_heads)
            else:
                cut = partial(_rows, start=start, stop=start + width)
            split[part.slot, 0] = _map(whole, cut)
            start += width
        return split

    def _turns(self, x: Array, place: int, n_parts: int, n_heads: int) -> Array:
        """Take one part of those that take turns by head: [head * part * d_head, …]."""
        rest = x.shape[1:]
        by_head = self.xp.reshape(x, (n_heads, n_parts, -1, *rest))
        return self.xp.reshape(by_head[:, place, ...], (-1, *rest))

    def is_fused(self, slot: str) -> bool:
        """Whether a module is stored as part of another."""
        return any(slot in fused.slots for fused in self.names.fused)


def _rows(x: Array, start: int, stop: int) -> Array:
    return x[start:stop, ...]


def _map(linear: Linear, cut: Callable[[Array], Array]) -> Linear:
    return Linear(cut(linear.weight), None if linear.bias is None else cut(linear.bias))
