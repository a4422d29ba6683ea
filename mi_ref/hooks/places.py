"""Places along one axis: which axis is meant, and which of its entries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsIndex, TypeAlias

from mi_ref.errors import ArgumentError
from mi_ref.whole_numbers import whole_number

Places: TypeAlias = int | slice | Sequence[int] | Sequence[bool] | None
"""Along one axis: an index, a slice, several, a mask of true and false, or None for all."""

_SPECIAL = {"pos": "query_pos", "head": "kv_head"}
"""``pos`` also means the queries of scores and patterns, ``head`` also the heads of keys."""


def axis_number(axis: str, axes: Sequence[str]) -> int | None:
    """Return which of a site's `axes` is meant by `axis`; None if it has none such."""
    for name in (axis, _SPECIAL.get(axis)):
        if name in axes:
            return axes.index(name)
    return None


def pos_axis(axes: Sequence[str]) -> int | None:
    """Return which axis is positions, the queries' for scores and patterns; None without one."""
    return axis_number("pos", axes)


def plain_places(chosen: Any, what: str) -> Places:
    """Return places as a slice, a tuple of Python's own numbers or truth values, or None.

    Raises
    ------
    ArgumentError
        If they are something else.
    """
    if chosen is None or isinstance(chosen, slice):
        return chosen
    listed = chosen.tolist() if hasattr(chosen, "tolist") else chosen
    if isinstance(listed, SupportsIndex) and not isinstance(listed, bool):
        return (whole_number(listed),)
    try:
        own = [n.tolist() if hasattr(n, "tolist") else n for n in listed]
        found = tuple(n if isinstance(n, bool) else whole_number(n) for n in own)
    except TypeError:
        raise ArgumentError(
            f"{what}={chosen!r}: expected an index, a slice, a sequence of indices, or a mask of"
            " true and false."
        ) from None
    if len({isinstance(n, bool) for n in found}) > 1:
        raise ArgumentError(f"{what}={chosen!r} mixes indices with true and false: use one kind.")
    return found


def indices(chosen: Places, size: int) -> list[int]:
    """Return places counted from the front.

    Raises
    ------
    IndexError
        If one lies outside, or a mask has another length.
    """
    if chosen is None:
        return list(range(size))
    if isinstance(chosen, slice):
        return list(range(*chosen.indices(size)))
    listed = [chosen] if isinstance(chosen, int) else list(chosen)
    if listed and all(isinstance(n, bool) for n in listed):
        if len(listed) != size:
            raise IndexError(f"are a mask of {len(listed)} for {size}")
        return [n for n, flag in enumerate(listed) if flag]
    if outside := [n for n in listed if not -size <= n < size]:
        raise IndexError(f"{outside} of {size}: expected indices from {-size} to {size - 1}")
    return [n % size for n in listed]
