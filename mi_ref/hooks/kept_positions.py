"""Which positions a capture keeps, read and checked."""

from __future__ import annotations

from mi_ref.errors import ArgumentError, HookError
from mi_ref.hooks.capture import Positions
from mi_ref.hooks.catalog import HookPoint
from mi_ref.hooks.places import indices, plain_places, pos_axis as pos_axis


def kept_positions(pos: Positions, entry: HookPoint, n_pos: int) -> list[int]:
    """Return `pos` as indices counted from the front.

    Raises
    ------
    ArgumentError
        If it is neither an index, nor a slice, nor a sequence of indices.
    HookError
        If it selects none of the `n_pos` positions, or one outside them.
    """
    chosen = plain_places(pos, "pos")
    # A mask of true and false would be taken for positions 1 and 0 elsewhere: refused here.
    if isinstance(chosen, tuple) and any(isinstance(n, bool) for n in chosen):
        raise ArgumentError(f"pos={pos!r}: expected an index, a slice or a sequence, got a mask.")
    try:
        wanted = indices(chosen, n_pos)
    except IndexError as error:
        raise HookError(f"pos={pos!r} of {entry.point!r}: positions {error}.") from None
    if not wanted:
        raise HookError(f"pos={pos!r} of {entry.point!r} keeps none of the {n_pos} positions.")
    return wanted
