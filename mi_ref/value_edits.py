"""Interventions on an activation's values: put, add, scale, mean, project out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from mi_ref._typing import Array
from mi_ref.errors import HookError, ShapeError
from mi_ref.hook_points import HookPoint
from mi_ref.hooks import Hook
from mi_ref.interventions import (
    Intervention,
    as_array,
    backend_of,
    broadcasts,
    indices,
    shape_of,
)
from mi_ref.kept_positions import pos_axis
from mi_ref.sites import at

MeanOver = Literal["batch", "pos"]


@dataclass(frozen=True, slots=True, repr=False)
class Replace(Intervention):
    """Put `value` in the place of the activation."""

    name: ClassVar[str] = "replace"
    value: Any = field(default=None, compare=False)

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the value in the shape of `x`."""
        return backend_of(hook).xp.broadcast_to(self._spread(x, hook), x.shape)

    def check(self, entry: HookPoint, batch: int, n_pos: int) -> None:
        """Refuse places that there are not, and a value that does not fit."""
        Intervention.check(self, entry, batch, n_pos)
        shape = shape_of(self.value)
        # The state passes position by position.
        sizes = entry.sizes(batch, 1 if entry.point.site is at.rwkv_state else n_pos)
        self._refuse_either_order(entry, shape, n_pos)
        axis = self._own_axis(entry.axes, shape, sizes, n_pos)
        if axis is not None:
            shape = (*shape[:axis], 1, *shape[len(shape) + axis + 1 :])
        if not broadcasts(shape, sizes):
            raise ShapeError(
                f"{self!r} at {entry.point!r}: a value of shape {shape_of(self.value)} does not"
                f" broadcast to {sizes} ({' '.join(entry.axes)}), nor has it one entry for each"
                " position named."
            )

    def _refuse_either_order(self, entry: HookPoint, shape: Sequence[int], n_pos: int) -> None:
        """Refuse as many entries as there are positions, which are named out of order."""
        axis = pos_axis(entry.axes)
        if self.positions is None or axis is None:
            return
        axis -= len(entry.axes)  # From the end: a value may lack axes in front.
        if len(shape) < -axis or shape[axis] != n_pos:
            return
        named = indices(self.positions, n_pos)
        if len(named) == n_pos > 1 and list(named) != sorted(named):
            raise ShapeError(
                f"{self!r} at {entry.point!r}: a value for all {n_pos} positions may stand in their"
                " own order or in that of positions=. Name them in their own order, or leave"
                " positions= out."
            )

    def _own_axis(
        self, axes: Sequence[str], shape: Sequence[int], sizes: Sequence[int], n_pos: int
    ) -> int | None:
        """Return the axis, from the end, that has one entry for each chosen position."""
        axis = pos_axis(axes)
        if self.positions is None or axis is None:
            return None
        axis -= len(axes)
        if len(shape) < -axis or shape[axis] in (1, sizes[axis]):
            return None
        return axis if shape[axis] == len(indices(self.positions, n_pos)) else None

    def _spread(self, x: Array, hook: Hook) -> Array:
        """Return the value; one for each chosen position is put where its position is."""
        backend, value = backend_of(hook), self.value
        axes, shape = hook.point.site.axes, shape_of(value)
        n_pos = hook.n_pos
        if n_pos is None or hook.pos is None:
            n_pos = x.shape[pos_axis(axes) or 0]
        axis = self._own_axis(axes, shape, x.shape, n_pos)
        if axis is None:
            return as_array(value, x, backend)
        place = {pos: n for n, pos in enumerate(indices(self.positions, n_pos))}
        passing = range(n_pos) if hook.pos is None else (hook.pos,)
        order = [place.get(pos, 0) for pos in passing]
        xp = backend.xp
        if not isinstance(value, type(x)):
            value = backend.from_host(value) if hasattr(value, "__array__") else xp.asarray(value)
        taken = xp.asarray(order, dtype=xp.int64, device=x.device)
        return as_array(xp.take(value, taken, axis=len(shape) + axis), x, backend)


@dataclass(frozen=True, slots=True, repr=False)
class Add(Replace):
    """Add `scale` times `value`: a steering vector, for one."""

    name: ClassVar[str] = "add"
    scale: float = 1.0

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the sum."""
        return x + self.scale * self._spread(x, hook)


@dataclass(frozen=True, slots=True, repr=False)
class Scale(Intervention):
    """Multiply with `factor`: 0 removes, 1 changes nothing, -1 turns round."""

    name: ClassVar[str] = "scale"
    factor: float = 0.0

    def change(self, x: Array, hook: Hook) -> Array:
        """Return `x` times the factor."""
        return x * self.factor


@dataclass(frozen=True, slots=True, repr=False)
class Fill(Intervention):
    """Put one number in the place of all; 0 is zero ablation."""

    name: ClassVar[str] = "fill"
    value: float = 0.0

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the number in the shape of `x`."""
        return backend_of(hook).xp.full_like(x, self.value)


@dataclass(frozen=True, slots=True, repr=False)
class Mean(Intervention):
    """Put the activation's own mean over rows or positions, pads left out, in the place of each."""

    name: ClassVar[str] = "mean"
    over: tuple[MeanOver, ...] = ("batch",)

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the mean in the shape of `x`."""
        xp, axes = backend_of(hook).xp, hook.point.site.axes
        if missing := [axis for axis in self.over if axis not in axes]:
            raise HookError(f"{self!r} at {hook.name}, which has no axis {', '.join(missing)}.")
        if hook.pos is not None and "pos" in self.over:
            raise HookError(f"{self!r} at {hook.name}: its positions pass one by one.")
        over = tuple(axes.index(axis) for axis in self.over)
        if hook.padding is None or "pos" not in axes:
            return xp.broadcast_to(xp.mean(x, axis=over, keepdims=True), x.shape)
        tokens = hook.padding.mask(backend_of(hook))
        if hook.pos is not None:
            tokens = tokens[:, hook.pos : hook.pos + 1]
        there = xp.reshape(xp.astype(tokens, x.dtype), (*tokens.shape, *(1,) * (x.ndim - 2)))
        count = xp.sum(there, axis=over, keepdims=True)
        # Where all are pads, any finite number will do.
        count = xp.where(count > 0, count, xp.ones_like(count))
        return xp.broadcast_to(xp.sum(x * there, axis=over, keepdims=True) / count, x.shape)


@dataclass(frozen=True, slots=True, repr=False)
class ProjectOut(Intervention):
    """Take away the part along `direction`, of the last axis."""

    name: ClassVar[str] = "project_out"
    direction: Any = field(default=None, compare=False)

    def check(self, entry: HookPoint, batch: int, n_pos: int) -> None:
        """Refuse places that there are not, and a direction of another width."""
        Intervention.check(self, entry, batch, n_pos)
        sizes, shape = entry.sizes(batch, n_pos), shape_of(self.direction)
        if not broadcasts(shape, sizes) or shape[-1:] != sizes[-1:]:
            raise ShapeError(
                f"{self!r} at {entry.point!r}: a direction of shape {shape} is no direction in"
                f" {sizes} ({' '.join(entry.axes)})."
            )

    def change(self, x: Array, hook: Hook) -> Array:
        """Return `x` without that part."""
        backend = backend_of(hook)
        along = as_array(self.direction, x, backend)
        length = backend.xp.sum(along * along, axis=-1, keepdims=True)
        if not bool(backend.xp.all(length > 0)):
            raise ShapeError(f"{self!r} at {hook.name}: a direction of zeros points nowhere.")
        return x - backend.xp.sum(x * along, axis=-1, keepdims=True) / length * along


@dataclass(frozen=True, slots=True, repr=False)
class Apply(Intervention):
    """Call a function of array and hook, as a bare edit does, but only where this acts."""

    name: ClassVar[str] = "apply"
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
    """Let the position after each of these read what that one reads itself.

    At ``at.rwkv_shift`` and ``at.mlp_shift``: the token after them sees the one before them.
    """

    name: ClassVar[str] = "bypass"

    def change(self, x: Array, hook: Hook) -> Array:
        """Return `x` with columns taken from before the bypassed positions."""
        xp, n_pos = backend_of(hook).xp, x.shape[1]
        skipped = set(indices(self.positions, n_pos))
        source: list[int] = []
        for pos in range(n_pos):
            source.append(source[pos - 1] if pos - 1 in skipped else pos)
        return xp.take(x, xp.asarray(source, dtype=xp.int64, device=x.device), axis=1)

    def mask(self, x: Array, hook: Hook) -> Array | None:
        """Return the rows meant: the positions after the chosen ones are those that change."""
        return Intervention.mask(replace(self, positions=None), x, hook)
