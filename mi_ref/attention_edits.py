"""Interventions on attention edges: who may look at whom, and how much.

Positions are the queries; `keys` are what they look at. Edges to what a query cannot see anyway
(later tokens, pads, keys beyond a window) stay as they are: nothing here lets it look there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from mi_ref._typing import Array
from mi_ref.errors import HookError
from mi_ref.hook_points import HookPoint
from mi_ref.hooks import Hook
from mi_ref.interventions import Intervention, Places, backend_of, indices, plain_places
from mi_ref.sites import at


@dataclass(frozen=True, slots=True, repr=False)
class EdgeEdit(Intervention):
    """An intervention on the edges from chosen queries to chosen keys."""

    keys: Places = field(default=None, kw_only=True)
    """What the queries look at; None for all."""

    def __post_init__(self) -> None:
        Intervention.__post_init__(self)
        object.__setattr__(self, "keys", plain_places(self.keys, "keys"))

    def edges(self, x: Array, hook: Hook) -> Array:
        """Return which edges are meant: [batch, head, query_pos, key_pos], or broadcasting."""
        xp, size = backend_of(hook).xp, x.shape[-1]
        wanted = frozenset(indices(self.keys, size))
        flags = xp.asarray([n in wanted for n in range(size)], device=x.device)
        mask = self.mask(x, hook)
        flags = flags[None, None, None, :]
        return flags if mask is None else xp.logical_and(mask, flags)

    def check(self, entry: HookPoint, batch: int, n_pos: int) -> None:
        """Refuse edges that there are not, and sites that have none."""
        Intervention.check(self, entry, batch, n_pos)
        if entry.axes[-1] != "key_pos":
            raise HookError(
                f"{self!r} at {entry.point!r}: edges are at at.attn_scores, at.pattern."
            )
        try:
            found = indices(self.keys, n_pos)
        except IndexError as error:
            raise HookError(f"{self!r} at {entry.point!r}: keys {error}.") from None
        if not found:
            raise HookError(f"{self!r} at {entry.point!r} names none of the {n_pos} keys.")

    def __call__(self, x: Array, hook: Hook) -> Array:
        """Return `x`, changed at these edges and, as they need it, in their rows."""
        return self.change(x, hook)

    def __repr__(self) -> str:
        return Intervention.__repr__(self).replace("positions=", "queries=")


@dataclass(frozen=True, slots=True, repr=False)
class Knockout(EdgeEdit):
    """Cut edges before the softmax: ``-inf`` at ``at.attn_scores``, after any soft-cap."""

    name: ClassVar[str] = "knockout"

    def check(self, entry: HookPoint, batch: int, n_pos: int) -> None:
        """Refuse any other site."""
        EdgeEdit.check(self, entry, batch, n_pos)
        if entry.point.site is not at.attn_scores:
            raise HookError(
                f"{self!r} at {entry.point!r}: it cuts edges before the softmax, at"
                " at.attn_scores, so that the others share their weight."
            )

    def change(self, x: Array, hook: Hook) -> Array:
        """Return scores without the edges.

        Raises
        ------
        HookError
            If a query is left with no key to look at, whose row would be NaN.
        """
        xp = backend_of(hook).xp
        cut = xp.where(self.edges(x, hook), xp.full_like(x, -xp.inf), x)
        blind = xp.logical_and(
            xp.all(cut == -xp.inf, axis=-1), xp.logical_not(xp.all(x == -xp.inf, axis=-1))
        )
        if bool(xp.any(blind)):
            raise HookError(
                f"{self!r} at {hook.name} leaves a query without any key to look at, and a softmax"
                " over nothing is NaN. Leave it one, or silence the head: do.zero() at at.z."
            )
        return cut


@dataclass(frozen=True, slots=True, repr=False)
class ScalePattern(EdgeEdit):
    """Multiply the weight of edges, after which each touched row sums to one again."""

    name: ClassVar[str] = "scale_pattern"
    factor: float = 1.0
    renormalise: bool = True

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the pattern with those edges scaled."""
        xp, edges = backend_of(hook).xp, self.edges(x, hook)
        scaled = xp.where(edges, x * self.factor, x)
        if not self.renormalise:
            return scaled
        total = xp.sum(scaled, axis=-1, keepdims=True)
        _refuse_empty(self, total, hook)
        return xp.where(xp.any(edges, axis=-1, keepdims=True), scaled / total, x)


@dataclass(frozen=True, slots=True, repr=False)
class SetPattern(EdgeEdit):
    """Give each edge this weight; the query's other visible keys share what is left.

    They keep their proportions; keys without weight, such as later tokens, get none.
    """

    name: ClassVar[str] = "set_pattern"
    weight: float = 0.0

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the pattern with those edges set.

        Raises
        ------
        HookError
            If the edges of a row would sum to more than one, or nothing can take what is left.
        """
        xp = backend_of(hook).xp
        # What has no weight is out of the query's sight.
        edges = xp.logical_and(self.edges(x, hook), x > 0)
        rows = xp.any(edges, axis=-1, keepdims=True)
        taken = self.weight * xp.sum(xp.astype(edges, x.dtype), axis=-1, keepdims=True)
        if bool(xp.any(taken > 1 + 1e-6)):
            raise HookError(f"{self!r} at {hook.name}: the weights of a row sum to more than one.")
        rest = xp.sum(xp.where(edges, xp.zeros_like(x), x), axis=-1, keepdims=True)
        _refuse_empty(self, xp.where(taken < 1 - 1e-6, rest, xp.ones_like(rest)), hook, rows)
        share = (1 - taken) / xp.where(rest > 0, rest, xp.ones_like(rest))
        return xp.where(rows, xp.where(edges, xp.full_like(x, self.weight), x * share), x)


def _refuse_empty(edit: EdgeEdit, total: Array, hook: Hook, rows: Array | None = None) -> None:
    xp = backend_of(hook).xp
    empty = total <= 0
    if bool(xp.any(empty if rows is None else xp.logical_and(empty, rows))):
        raise HookError(
            f"{edit!r} at {hook.name} leaves a row without weight to share out. To cut edges, use"
            " do.knockout at at.attn_scores; to silence a head, do.zero() at at.z."
        )
