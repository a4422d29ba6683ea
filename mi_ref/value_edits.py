"""Interventions on an activation's values: put, add, scale, mean, project out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from mi_ref._typing import Array
from mi_ref.errors import HookError, ShapeError
from mi_ref.hooks import Hook
from mi_ref.interventions import Intervention, as_array, backend_of, indices

MeanOver = Literal["batch", "pos"]


@dataclass(frozen=True, slots=True, repr=False)
class Replace(Intervention):
    """Put `value` in the place of the activation."""

    name: ClassVar[str] = "replace"
    value: Any = field(default=None, compare=False)

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the value in the shape of `x`."""
        return backend_of(hook).xp.broadcast_to(self._spread(x, hook), x.shape)

    def _spread(self, x: Array, hook: Hook) -> Array:
        """Return the value; one for each chosen position is put where its position is."""
        backend, axes = backend_of(hook), hook.point.site.axes
        value = self.value
        if hook.pos is not None or self.positions is None or "pos" not in axes:
            return as_array(value, x, backend)
        axis = axes.index("pos") - len(axes)
        chosen = indices(self.positions, x.shape[axis])
        shape = tuple(getattr(value, "shape", ()))
        if len(shape) < -axis or shape[axis] != len(chosen) or shape[axis] in (1, x.shape[axis]):
            return as_array(value, x, backend)
        place = {pos: n for n, pos in enumerate(chosen)}
        order = [place.get(pos, 0) for pos in range(x.shape[axis])]
        value = value if isinstance(value, type(x)) else backend.from_host(value)
        taken = backend.xp.asarray(order, dtype=backend.xp.int64, device=x.device)
        return as_array(backend.xp.take(value, taken, axis=len(shape) + axis), x, backend)


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
    """Put the activation's own mean over rows or positions in the place of each."""

    name: ClassVar[str] = "mean"
    over: tuple[MeanOver, ...] = ("batch",)

    def change(self, x: Array, hook: Hook) -> Array:
        """Return the mean in the shape of `x`."""
        xp, axes = backend_of(hook).xp, hook.point.site.axes
        if missing := [axis for axis in self.over if axis not in axes]:
            raise HookError(f"{self!r} at {hook.name}, which has no axis {', '.join(missing)}.")
        if hook.pos is not None and "pos" in self.over:
            raise HookError(f"{self!r} at {hook.name}: its positions pass one by one.")
        mean = xp.mean(x, axis=tuple(axes.index(axis) for axis in self.over), keepdims=True)
        return xp.broadcast_to(mean, x.shape)


@dataclass(frozen=True, slots=True, repr=False)
class ProjectOut(Intervention):
    """Take away the part along `direction`, of the last axis."""

    name: ClassVar[str] = "project_out"
    direction: Any = field(default=None, compare=False)

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
        """Return None: the positions after the chosen ones are those that change."""
        return None
