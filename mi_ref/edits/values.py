"""Interventions on values: replace, add, scale, fill, mean, project out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from mi_ref._typing import Array
from mi_ref.edits.intervention import Intervention, as_array, backend_of, broadcasts, shape_of
from mi_ref.errors import ArgumentError, HookError, ShapeError
from mi_ref.hooks.capture import Hook
from mi_ref.hooks.catalog import HookPoint
from mi_ref.hooks.places import Places, indices, pos_axis

MeanOver = Literal["batch", "pos"]


@dataclass(frozen=True, slots=True, repr=False)
class Replace(Intervention):
    """Replace the activation by `value`."""

    name: ClassVar[str] = "replace"
    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True
    value: Any = field(default=None, compare=False)

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the value in the shape of `x`."""
        return backend_of(hook).xp.broadcast_to(self._spread(x, hook), x.shape)

    def row_by_row(self, axes: Sequence[str]) -> bool:
        """Whether the value is the same for every row."""
        return one_for_all_rows(self.value, axes)

    def check(self, entry: HookPoint, shape: tuple[int, ...]) -> None:
        """Refuse places that do not exist, and a value that does not fit."""
        Intervention.check(self, entry, shape)
        axis, own = pos_axis(entry.axes), shape_of(self.value)
        self._refuse_either_order(entry, own, shape)
        sizes = list(shape)
        if axis is not None and entry.point.site.by_position:
            sizes[axis] = 1
        spread = self._own_axis(entry.axes, own, sizes, shape[axis or 0])
        if spread is not None:
            own = (*own[:spread], 1, *own[len(own) + spread + 1 :])
        if not broadcasts(own, sizes):
            raise ShapeError(
                f"{self!r} at {entry.point!r}: the value has shape {shape_of(self.value)}; expected"
                f" one that broadcasts to {tuple(sizes)} ({' '.join(entry.axes)}), or one with an"
                " entry for each of positions=."
            )

    def _refuse_either_order(
        self, entry: HookPoint, own: Sequence[int], shape: Sequence[int]
    ) -> None:
        """Refuse as many entries as there are positions, which are named out of order."""
        axis, positions = pos_axis(entry.axes), self._positions(entry.axes)
        if positions is None or axis is None:
            return
        n_pos = shape[axis]
        axis -= len(entry.axes)  # From the end: a value may lack axes in front.
        if len(own) < -axis or own[axis] != n_pos:
            return
        named = indices(positions, n_pos)
        if len(named) == n_pos > 1 and named != sorted(named):
            raise ShapeError(
                f"{self!r} at {entry.point!r}: a value for all {n_pos} positions may stand in their"
                " own order or in that of positions=. Name them in their own order, or leave"
                " positions= out."
            )

    def _positions(self, axes: tuple[str, ...]) -> Places:
        return self.where.along("pos", axes)

    def _own_axis(
        self, axes: tuple[str, ...], own: Sequence[int], sizes: Sequence[int], n_pos: int
    ) -> int | None:
        """Return the axis, from the end, that has one entry for each chosen position."""
        axis, positions = pos_axis(axes), self._positions(axes)
        if positions is None or axis is None:
            return None
        axis -= len(axes)
        if len(own) < -axis or own[axis] in (1, sizes[axis]):
            return None
        return axis if own[axis] == len(indices(positions, n_pos)) else None

    def _spread(self, x: Array, hook: Hook) -> Array:
        """Return the value; one for each chosen position is put where its position is."""
        backend, value = backend_of(hook), self.value
        axes, own = hook.point.site.axes, shape_of(value)
        n_pos = hook.n_pos
        if n_pos is None or hook.pos is None:
            n_pos = x.shape[pos_axis(axes) or 0]
        axis = self._own_axis(axes, own, x.shape, n_pos)
        if axis is None:
            return as_array(value, x, backend)
        place = {pos: n for n, pos in enumerate(indices(self._positions(axes), n_pos))}
        passing = range(n_pos) if hook.pos is None else (hook.pos,)
        order = [place.get(pos, 0) for pos in passing]
        xp = backend.xp
        if not isinstance(value, type(x)):
            value = backend.from_host(value) if hasattr(value, "__array__") else xp.asarray(value)
        taken = xp.asarray(order, dtype=xp.int64, device=x.device)
        return as_array(xp.take(value, taken, axis=len(own) + axis), x, backend)


@dataclass(frozen=True, slots=True, repr=False)
class Add(Replace):
    """Add `scale` times `value`, such as a steering vector."""

    name: ClassVar[str] = "add"
    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True
    scale: float = 1.0

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the sum."""
        return x + self.scale * self._spread(x, hook)


@dataclass(frozen=True, slots=True, repr=False)
class Scale(Intervention):
    """Multiply by `factor`: 0 removes, 1 changes nothing, -1 flips the sign."""

    name: ClassVar[str] = "scale"
    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True
    factor: float = 0.0

    def row_by_row(self, axes: Sequence[str]) -> bool:
        """Return True."""
        return True

    def change(self, x: Array, hook: Hook) -> Array:
        """Return `x` times the factor."""
        return x * self.factor


@dataclass(frozen=True, slots=True, repr=False)
class Fill(Intervention):
    """Put one number in place of every value; 0 is zero ablation."""

    name: ClassVar[str] = "fill"
    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True
    value: float = 0.0

    def row_by_row(self, axes: Sequence[str]) -> bool:
        """Return True."""
        return True

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the number in the shape of `x`."""
        return backend_of(hook).xp.full_like(x, self.value)


@dataclass(frozen=True, slots=True, repr=False)
class Mean(Intervention):
    """Replace each value by its mean over rows, positions or both, without pads."""

    name: ClassVar[str] = "mean"
    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True
    over: tuple[MeanOver, ...] = ("batch",)

    def __post_init__(self, *words: Places) -> None:
        Intervention.__post_init__(self, *words)
        known = get_args(MeanOver)
        if not self.over or any(axis not in known for axis in self.over):
            raise ArgumentError(f"over={self.over!r}: expected 'batch', 'pos' or both.")

    def row_by_row(self, axes: Sequence[str]) -> bool:
        """Whether the mean leaves other rows out."""
        return "batch" not in self.over

    def check(self, entry: HookPoint, shape: tuple[int, ...]) -> None:
        """Refuse places that do not exist, and a mean over an axis that this point lacks."""
        Intervention.check(self, entry, shape)
        if missing := [axis for axis in self.over if axis not in entry.axes]:
            raise HookError(
                f"{self!r} at {entry.point!r}, which has no axis {', '.join(missing)}: its axes"
                f" are {' '.join(entry.axes)}."
            )
        if "pos" in self.over and entry.point.site.by_position:
            raise HookError(
                f"{self!r} at {entry.point!r}: positions are edited one by one here, so a mean"
                " over them does not exist. Capture them first, and use do.replace."
            )

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the mean in the shape of `x`."""
        xp, axes = backend_of(hook).xp, hook.point.site.axes
        over = tuple(axes.index(axis) for axis in self.over)
        if hook.padding is None or "pos" not in axes:
            return xp.broadcast_to(xp.mean(x, axis=over, keepdims=True), x.shape)
        tokens = hook.padding.mask(backend_of(hook))
        if hook.pos is not None:
            tokens = tokens[:, hook.pos : hook.pos + 1]
        there = xp.reshape(xp.astype(tokens, x.dtype), (*tokens.shape, *(1,) * (x.ndim - 2)))
        count = xp.sum(there, axis=over, keepdims=True)
        # Where all are pads nothing reads the result: any finite number will do.
        count = xp.where(count > 0, count, xp.ones_like(count))
        return xp.broadcast_to(xp.sum(x * there, axis=over, keepdims=True) / count, x.shape)


@dataclass(frozen=True, slots=True, repr=False)
class ProjectOut(Intervention):
    """Remove the component along `direction`, on the last axis."""

    name: ClassVar[str] = "project_out"
    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True
    direction: Any = field(default=None, compare=False)

    def row_by_row(self, axes: Sequence[str]) -> bool:
        """Whether the direction is the same for every row."""
        return one_for_all_rows(self.direction, axes)

    def check(self, entry: HookPoint, shape: tuple[int, ...]) -> None:
        """Refuse places that do not exist, and a direction of another width."""
        Intervention.check(self, entry, shape)
        own = shape_of(self.direction)
        if not broadcasts(own, shape) or own[-1:] != shape[-1:]:
            raise ShapeError(
                f"{self!r} at {entry.point!r}: the direction has shape {own}; expected one that"
                f" broadcasts to {shape} ({' '.join(entry.axes)}) and is as wide as its last axis."
            )

    def change(self, x: Array, hook: Hook) -> Array:
        """Return `x` without that component."""
        backend = backend_of(hook)
        along = as_array(self.direction, x, backend)
        length = backend.xp.sum(along * along, axis=-1, keepdims=True)
        if not bool(backend.xp.all(length > 0)):
            raise ArgumentError(f"{self!r} at {hook.name}: the direction is zero.")
        return x - backend.xp.sum(x * along, axis=-1, keepdims=True) / length * along


@dataclass(frozen=True, slots=True, repr=False)
class Apply(Intervention):
    """Call a function of array and hook, as a bare edit does, but only where this acts."""

    name: ClassVar[str] = "apply"
    pure: ClassVar[bool] = True
    """The function gets a copy of its own."""
    function: Callable[[Array, Hook], Array | None] = field(
        default=lambda x, hook: None, compare=False
    )

    def change(self, x: Array, hook: Hook) -> Array:
        """Return what the function does."""
        own = backend_of(hook).xp.asarray(x, copy=True)
        changed = self.function(own, hook)
        return own if changed is None else changed


@dataclass(frozen=True, slots=True, repr=False)
class Bypass(Intervention):
    """Skip positions in token shift: the token after them sees the one before them.

    For ``at.rwkv_shift`` and ``at.mlp_shift``.
    """

    name: ClassVar[str] = "bypass"
    pure: ClassVar[bool] = True
    in_files: ClassVar[bool] = True

    def change(self, x: Array, hook: Hook) -> Array:
        """Return `x` with columns taken from before the bypassed positions."""
        xp, n_pos = backend_of(hook).xp, x.shape[1]
        skipped = set(indices(self.where.get("pos"), n_pos))
        source: list[int] = []
        for pos in range(n_pos):
            source.append(source[pos - 1] if pos - 1 in skipped else pos)
        return xp.take(x, xp.asarray(source, dtype=xp.int64, device=x.device), axis=1)

    def mask(self, x: Array, hook: Hook) -> Array | None:
        """Return the rows meant: the positions that change are those after the chosen ones."""
        return Intervention.mask(self.within(pos=None), x, hook)


def one_for_all_rows(value: Any, axes: Sequence[str]) -> bool:
    """Whether a value that broadcasts to a site's axes holds nothing of single rows."""
    if isinstance(value, int | float):
        return True
    # Nested lists have no shape to look at; a batch of its own in a value would meet other rows.
    shape = getattr(value, "shape", None)
    return shape is not None and (len(shape) < len(axes) or shape[0] == 1)
