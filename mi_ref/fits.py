"""Whether an array can stand in for an activation."""

from __future__ import annotations

from collections.abc import Sequence

from mi_ref._typing import Array
from mi_ref.errors import ShapeError
from mi_ref.hook_points import HookPoint


def check_fits(
    value: Array, shape: tuple[int, ...], like: Array, entry: HookPoint, what: str
) -> None:
    """Refuse a `value` that cannot stand in for an activation of `shape`."""
    where = f"{what} at {entry.point!r}"
    if not isinstance(value, type(like)):
        needed = f"{type(like).__module__}.{type(like).__name__}"
        raise ShapeError(f"{where} is a {type(value).__name__}; it must be a {needed}.")
    if tuple(value.shape) != tuple(shape):
        sizes = ", ".join(f"{axis} {n}" for axis, n in zip(entry.axes, shape, strict=True))
        raise ShapeError(
            f"{where} has shape {tuple(value.shape)}; it must be ({sizes})."
            + _differs(value.shape, shape, entry.axes)
        )
    if value.dtype != like.dtype or value.device != like.device:
        raise ShapeError(
            f"{where} is {value.dtype} on {value.device}; the activation is {like.dtype} on"
            f" {like.device}. Convert it first: a silent cast would hide lost digits."
        )


def _differs(found: Sequence[int], needed: Sequence[int], axes: Sequence[str]) -> str:
    if len(found) != len(needed):
        return f" It has {len(found)} axes where {len(needed)} are needed."
    wrong = [axis for axis, a, b in zip(axes, found, needed, strict=True) if a != b]
    advice = ": patch between prompts of equal length" if "pos" in " ".join(wrong) else ""
    return f" {' and '.join(wrong)} {'differs' if len(wrong) == 1 else 'differ'}{advice}."
