"""Interventions on attention edges: which query may look at which key, and how much.

`positions` are the queries, counted among this call's prompt. `keys` are what they look at, counted
among all the keys, of which the prompt's own are the last. Edges to what a query cannot see anyway
(later tokens, pads, keys beyond a window) stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from mi_ref._typing import Array
from mi_ref.edits.intervention import Intervention, backend_of
from mi_ref.errors import HookError
from mi_ref.hooks.capture import Hook
from mi_ref.hooks.catalog import HookPoint
from mi_ref.hooks.sites import at


@dataclass(frozen=True, slots=True, repr=False)
class EdgeEdit(Intervention):
    """An intervention on the edges from chosen queries to chosen keys."""

    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True

    def row_by_row(self, axes: Sequence[str]) -> bool:
        """Return True."""
        return True

    def edges(self, x: Array, hook: Hook) -> Array:
        """Return which edges are meant: [batch, head, query_pos, key_pos], or broadcasting."""
        mask = self.mask(x, hook)
        xp = backend_of(hook).xp
        return xp.ones((1, 1, 1, 1), dtype=xp.bool, device=x.device) if mask is None else mask

    def check(self, entry: HookPoint, shape: tuple[int, ...]) -> None:
        """Refuse edges that do not exist, and sites without edges."""
        if entry.axes[-1] != "key_pos":
            raise HookError(
                f"{self!r} at {entry.point!r}: expected a site with edges, at.attn_scores or"
                " at.pattern."
            )
        Intervention.check(self, entry, shape)

    def __call__(self, x: Array, hook: Hook) -> Array:
        """Return `x`, changed at these edges and, as they need it, in their rows."""
        return self.change(x, hook)

    def spelled(self, word: str) -> str:
        """Return the keyword of :mod:`mi_ref.do`, where positions are called queries."""
        return "queries" if word == "positions" else word


@dataclass(frozen=True, slots=True, repr=False)
class Knockout(EdgeEdit):
    """Cut edges before the softmax: ``-inf`` at ``at.attn_scores``, after any soft-cap."""

    name: ClassVar[str] = "knockout"

    def check(self, entry: HookPoint, shape: tuple[int, ...]) -> None:
        """Refuse any other site."""
        EdgeEdit.check(self, entry, shape)
        if entry.point.site is not at.attn_scores:
            raise HookError(
                f"{self!r} at {entry.point!r}: expected at.attn_scores. A knockout cuts edges"
                " before the softmax, so that the others share their weight."
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
                f"{self!r} at {hook.name} leaves a query without any key to look at: its softmax"
                " would be NaN. Leave it a key, or silence the head with do.zero() at at.z."
            )
        return cut


@dataclass(frozen=True, slots=True, repr=False)
class ScalePattern(EdgeEdit):
    """Multiply the weight of edges, then rescale each touched row to sum to one."""

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
        # A key without weight is one that the query cannot see.
        edges = xp.logical_and(self.edges(x, hook), x > 0)
        rows = xp.any(edges, axis=-1, keepdims=True)
        taken = self.weight * xp.sum(xp.astype(edges, x.dtype), axis=-1, keepdims=True)
        if bool(xp.any(taken > 1 + 1e-6)):
            raise HookError(
                f"{self!r} at {hook.name}: the weights of a row sum to more than one. Name fewer"
                " keys, or a smaller weight."
            )
        rest = xp.sum(xp.where(edges, xp.zeros_like(x), x), axis=-1, keepdims=True)
        _refuse_empty(self, xp.where(taken < 1 - 1e-6, rest, xp.ones_like(rest)), hook, rows)
        share = (1 - taken) / xp.where(rest > 0, rest, xp.ones_like(rest))
        return xp.where(rows, xp.where(edges, xp.full_like(x, self.weight), x * share), x)


def _refuse_empty(edit: EdgeEdit, total: Array, hook: Hook, rows: Array | None = None) -> None:
    xp = backend_of(hook).xp
    empty = total <= 0
    if bool(xp.any(empty if rows is None else xp.logical_and(empty, rows))):
        raise HookError(
            f"{edit!r} at {hook.name} leaves a row without weight to distribute. To cut edges, use"
            " do.knockout at at.attn_scores; to silence a head, do.zero() at at.z."
        )
