"""Which positions a capture keeps, read and checked."""

from __future__ import annotations

from collections.abc import Sequence, Sized
from operator import index
from typing import SupportsIndex

from mi_ref.errors import HookError
from mi_ref.hook_points import HookPoint
from mi_ref.hooks import Positions


def pos_axis(axes: Sequence[str]) -> int | None:
    """Return which axis is positions, the queries' for scores and patterns; None without one."""
    return next((n for n, axis in enumerate(axes) if axis in ("pos", "query_pos")), None)


def kept_positions(pos: Positions, entry: HookPoint, n_pos: int) -> list[int]:
    """Return `pos` as indices counted from the front.

    Raises
    ------
    HookError
        If it names none of the `n_pos` positions, one outside them, or is no position at all.
    """
    if isinstance(pos, slice):
        wanted = list(range(*pos.indices(n_pos)))
    else:
        given = list(pos) if isinstance(pos, Sized) else [pos]
        # A mask of true and false would pass as positions 1 and 0.
        if any(isinstance(i, bool) or not isinstance(i, SupportsIndex) for i in given):
            raise HookError(f"pos={pos!r} of {entry.point!r} is no position, slice or sequence.")
        wanted = [index(i) for i in given]
    if not wanted:
        raise HookError(f"pos={pos!r} of {entry.point!r} keeps none of the {n_pos} positions.")
    outside = [i for i in wanted if not -n_pos <= i < n_pos]
    if outside:
        raise HookError(f"pos={outside} of {entry.point!r} lies outside the {n_pos} positions.")
    return [i % n_pos for i in wanted]
