"""Edits as plain data: what they do and where, checked before any compute.

An intervention is an edit like any other, ``edits=[(at.z[3], do.scale(0.5, heads=[2]))]``, that
prints as the call that makes it and can be written to a file. :mod:`mi_ref.do` makes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from operator import index
from typing import Any, ClassVar, SupportsIndex, TypeAlias

from mi_ref._typing import Array
from mi_ref.backend import Backend
from mi_ref.errors import HookError, ShapeError
from mi_ref.hook_points import HookPoint
from mi_ref.hooks import Hook
from mi_ref.padding import Padding

Places: TypeAlias = int | slice | Sequence[int] | Sequence[bool] | None
"""Along one axis: an index, a slice, several, a mask of true and false, or None for all."""

_AXES = {
    "positions": ("pos", "query_pos"),
    "heads": ("head", "kv_head"),
    "neurons": ("d_mlp",),
    "rows": ("batch",),
}
"""Which axis of a site each restriction is along."""


@dataclass(frozen=True, slots=True, repr=False)
class Intervention(ABC):
    """An edit that says where it acts; everywhere else it leaves an activation as it is.

    Attributes
    ----------
    positions : Places
        Of the prompt's columns (of the queries, for scores and patterns).
    heads : Places
        At sites that have heads.
    neurons : Places
        At sites that have neurons.
    rows : Places
        Of the batch.
    """

    name: ClassVar[str]
    """What the function of :mod:`mi_ref.do` is called that makes it."""

    positions: Places = None
    heads: Places = field(default=None, kw_only=True)
    neurons: Places = field(default=None, kw_only=True)
    rows: Places = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        # Whatever came in, plain tuples stay: they print, compare, hash and go to JSON.
        for what in _AXES:
            object.__setattr__(self, what, plain_places(getattr(self, what), what))

    @abstractmethod
    def change(self, x: Array, hook: Hook) -> Array:
        """Return what takes the place of `x` where this acts."""

    def __call__(self, x: Array, hook: Hook) -> Array:
        """Return `x`, changed where this acts."""
        if not self.acts_at(hook):
            return x
        changed = self.change(x, hook)
        mask = self.mask(x, hook)
        return changed if mask is None else backend_of(hook).xp.where(mask, changed, x)

    def acts_at(self, hook: Hook) -> bool:
        """Whether this acts at the one position that is passed, where they pass one by one."""
        if hook.pos is None or self.positions is None or hook.n_pos is None:
            return True
        return hook.pos in indices(self.positions, hook.n_pos)

    def mask(self, x: Array, hook: Hook) -> Array | None:
        """Return where this acts, broadcasting to `x`; None for everywhere."""
        xp, mask = backend_of(hook).xp, None
        for axis, chosen, what in self.restrictions(hook.point.site.axes):
            if axis is None or (what == "positions" and hook.pos is not None):
                continue
            size = x.shape[axis]
            wanted = frozenset(indices(chosen, size))
            flags = xp.asarray([n in wanted for n in range(size)], device=x.device)
            flags = xp.reshape(flags, tuple(size if n == axis else 1 for n in range(x.ndim)))
            mask = flags if mask is None else xp.logical_and(mask, flags)
        return mask

    def restrictions(self, axes: Sequence[str]) -> Iterator[tuple[int | None, Places, str]]:
        """Yield the axis, the places and the word of every restriction that was made."""
        for what, names in _AXES.items():
            chosen: Places = getattr(self, what)
            if chosen is not None:
                yield next((n for n, axis in enumerate(axes) if axis in names), None), chosen, what

    def check(self, entry: HookPoint, batch: int, n_pos: int) -> None:
        """Refuse places that the point does not have.

        Raises
        ------
        HookError
            Saying which.
        """
        for axis, chosen, what in self.restrictions(entry.axes):
            if axis is None:
                raise HookError(
                    f"{self!r} at {entry.point!r}, whose axes are {' '.join(entry.axes)}: it has no"
                    f" {what} to choose from."
                )
            size = entry.sizes(batch, n_pos)[axis]
            try:
                found = indices(chosen, size)
            except IndexError as error:
                raise HookError(f"{self!r} at {entry.point!r}: {what} {error}.") from None
            if not found:
                raise HookError(f"{self!r} at {entry.point!r} names none of its {size} {what}.")

    def __repr__(self) -> str:
        said = []
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name in _AXES and value is None:
                continue
            shown = repr(value) if _is_plain(value) else f"<{type(value).__name__}>"
            said.append(f"{each.name}={shown}")
        return f"{self.name}({', '.join(said)})"


def refuse_pads(edit: Intervention, entry: HookPoint, padding: Padding) -> None:
    """Refuse positions named one by one that are nothing but pads in a row that the edit acts on.

    A slice or a mask may well end before the tokens of a short row begin.

    Raises
    ------
    HookError
        Saying in which rows, and where their tokens are.
    """
    named = edit.positions
    if not isinstance(named, tuple) or any(isinstance(n, bool) for n in named):
        return
    columns = indices(named, padding.n_pos)
    spans = list(zip(padding.starts, padding.stops, strict=True))
    missed = [
        row
        for row in indices(edit.rows, len(spans))
        if not any(spans[row][0] <= column < spans[row][1] for column in columns)
    ]
    if missed:
        where = ", ".join(f"row {n} has its tokens in {spans[n][0]} to {spans[n][1] - 1}"
                          for n in missed)  # fmt: skip
        raise HookError(
            f"{edit!r} at {entry.point!r}: positions are columns of the padded batch, and columns"
            f" {columns} hold nothing but pads there: {where}. Pad on the other side"
            " (padding_side=), or make an edit of its own for each row (rows=)."
        )


def backend_of(hook: Hook) -> Backend:
    """Return the backend of the array that an edit was given."""
    if hook.backend is None:
        raise HookError(f"{hook.name}: interventions are called by a run, which tells them more.")
    return hook.backend


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
        raise IndexError(f"{outside} of {size}; name some from {-size} to {size - 1}")
    return [n % size for n in listed]


def as_array(value: Any, x: Array, backend: Backend) -> Array:
    """Return `value`, whatever array or nested sequence it is, as an array like `x`.

    Raises
    ------
    ShapeError
        If it does not broadcast to `x`.
    """
    if not isinstance(value, type(x)):
        if not hasattr(value, "__array__"):
            value = backend.xp.asarray(value, dtype=x.dtype, device=x.device)
        else:
            value = backend.from_host(value)
    value = backend.xp.astype(value, x.dtype, copy=False)
    if not broadcasts(value.shape, x.shape):
        raise ShapeError(
            f"an array of shape {tuple(value.shape)} does not broadcast to the activation's"
            f" {tuple(x.shape)}."
        )
    return value


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an array or nested sequence.

    Raises
    ------
    ShapeError
        If the sequence is ragged.
    """
    if hasattr(value, "shape"):
        return tuple(value.shape)
    if not isinstance(value, Sequence):
        return ()
    inner = {shape_of(item) for item in value}
    if len(inner) > 1:
        raise ShapeError(f"a nested sequence is ragged: it holds shapes {sorted(inner)}.")
    return (len(value), *(next(iter(inner)) if inner else ()))


def broadcasts(shape: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether an array of `shape` stretches to exactly `sizes`."""
    ends = list(sizes)[len(sizes) - len(shape) :]
    return len(shape) <= len(sizes) and all(a in (1, b) for a, b in zip(shape, ends, strict=True))


def plain_places(chosen: Any, what: str) -> Places:
    """Return places as a slice, a tuple of Python's own numbers or truth values, or None.

    Raises
    ------
    HookError
        If they are something else.
    """
    if chosen is None or isinstance(chosen, slice):
        return chosen
    listed = chosen.tolist() if hasattr(chosen, "tolist") else chosen
    if isinstance(listed, SupportsIndex) and not isinstance(listed, bool):
        return (index(listed),)
    try:
        own = [n.tolist() if hasattr(n, "tolist") else n for n in listed]
        found = tuple(n if isinstance(n, bool) else index(n) for n in own)
    except TypeError:
        raise HookError(
            f"{what}={chosen!r}: it is an index, a slice, several, or a mask."
        ) from None
    if len({isinstance(n, bool) for n in found}) > 1:
        raise HookError(f"{what}={chosen!r} mixes indices with true and false.")
    return found


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float | str | tuple | slice)
