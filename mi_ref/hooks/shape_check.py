"""Whether an array can stand in for an activation."""

from __future__ import annotations

from collections.abc import Sequence

from mi_ref._typing import Array
from mi_ref.errors import ShapeError
from mi_ref.hooks.catalog import HookPoint


def shape_check(
    value: Array, shape: tuple[int, ...], like: Array, entry: HookPoint, what: str
) -> None:
    """Refuse a `value` that cannot stand in for an activation of `shape`."""
    where = f"{what} at {entry.point!r}"
    if not isinstance(value, type(like)):
        needed = f"{type(like).__module__}.{type(like).__name__}"
        raise ShapeError(f"{where}: expected a {needed}, got a {type(value).__name__}.")
    if tuple(value.shape) != tuple(shape):
        sizes = ", ".join(f"{axis} {n}" for axis, n in zip(entry.axes, shape, strict=True))
        raise ShapeError(
            f"{where}: expected ({sizes}), got shape {tuple(value.shape)}."
            + _differs(value.shape, shape, entry.axes)
        )
    if value.dtype != like.dtype or value.device != like.device:
        raise ShapeError(
            f"{where}: expected {like.dtype} on {like.device}, got {value.dtype} on"
            f" {value.device}. Convert it first: a silent cast would hide lost digits."
        )


def _differs(found: Sequence[int], needed: Sequence[int], axes: Sequence[str]) -> str:
    if len(found) != len(needed):
        return f" It has {len(found)} axes instead of {len(needed)}."
    wrong = [axis for axis, a, b in zip(axes, found, needed, strict=True) if a != b]
    patching = any(axis.endswith("pos") for axis in wrong)
    advice = ": patch between prompts of equal length" if patching else ""
    return f" {' and '.join(wrong)} {'differs' if len(wrong) == 1 else 'differ'}{advice}."
