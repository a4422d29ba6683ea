"""Captures and edits at a site that is passed position by position."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mi_ref._typing import Array, Namespace


class Steps:
    """Captures and edits of one layer's state, position by position.

    Parameters
    ----------
    chosen : sequence of int
        Positions to keep, in the order in which they are wanted; empty for none.
    early : bool
        Whether to keep them as they are before the edits.
    edit : callable or None
        ``edit(state, pos)`` returns the edited state; None if nothing is edited.
    keep : callable
        Gets the captured array once all positions have passed.
    xp
        Namespace.
    """

    def __init__(
        self,
        chosen: Sequence[int],
        early: bool,
        edit: Callable[[Array, int], Array] | None,
        keep: Callable[[Array], None],
        xp: Namespace,
    ) -> None:
        self._chosen = chosen
        self._early = early
        self._edit = edit
        self._keep = keep
        self._xp = xp
        self._wanted = frozenset(chosen)
        self._kept: dict[int, Array] = {}

    @property
    def edits(self) -> bool:
        """Whether a state may be changed."""
        return self._edit is not None

    def __call__(self, pos: int, x: Array) -> Array:
        """Return what flows on from position `pos`, whose array is ``[batch, 1, …]``."""
        wanted = pos in self._wanted
        if wanted and self._early:
            self._kept[pos] = x
        if self._edit is not None:
            x = self._edit(x, pos)
        if wanted and not self._early:
            self._kept[pos] = x
        return x

    def finish(self) -> None:
        """Store what was captured."""
        if self._chosen:
            self._keep(self._xp.concat([self._kept[pos] for pos in self._chosen], axis=1))
