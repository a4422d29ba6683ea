"""What callers pass to hooks: captures and edits; and what an edit is told."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from mi_ref._typing import Array
from mi_ref.backend import Backend
from mi_ref.hooks.selectors import Selector
from mi_ref.hooks.sites import Point
from mi_ref.text.padding import Padding


@dataclass(frozen=True, slots=True)
class Hook:
    """What an edit function is told about where it stands."""

    name: str
    """TransformerLens' string of the point."""
    layer: int | None
    point: Point
    pos: int | None = None
    """Which position this is, at ``at.rwkv_state``, where each is edited on its own."""
    n_pos: int | None = None
    """How many positions the prompt has."""
    padding: Padding | None = field(default=None, repr=False)
    """Which columns of each row are tokens; None if all are."""
    backend: Backend | None = field(default=None, repr=False, compare=False)
    """The array's: ``hook.backend.xp`` is its namespace."""
    first_pos: int = 0
    """Where the prompt's first position stands in the whole text."""


EditFunction: TypeAlias = Callable[[Array, Hook], Array | None]
Edit: TypeAlias = EditFunction | Array
"""A function of array and hook, or an array that replaces the activation."""
# Any for the keys of a mapping, which are selectors: type checkers allow no subtypes of a key.
Edits: TypeAlias = Mapping[Any, Edit] | Sequence[tuple[Selector, Edit]]
Positions: TypeAlias = int | slice | Sequence[int]


@dataclass(frozen=True, slots=True)
class Capture:
    """A request to keep activations; see `capture`."""

    selector: Selector
    before_edits: bool
    pos: Positions | None


def capture(
    selector: Selector, *, before_edits: bool = False, pos: Positions | None = None
) -> Capture:
    """Ask for activations with options; a bare selector asks for them without.

    Parameters
    ----------
    selector : Selector
        A point, slice, string, glob, predicate or tuple.
    before_edits : bool
        Keep the value as it was before this call's edits at that point.
    pos : int, slice, sequence of int or None
        Keep only these positions (of the queries, for scores and patterns). The axis stays.
    """
    return Capture(selector, before_edits, pos)


CaptureLike: TypeAlias = Selector | Capture
