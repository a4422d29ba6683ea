"""Edits as plain data: what they do, where, checked before any compute.

An intervention is an edit like any other, ``edits=[(at.rwkv_write[3], Scale(positions=[5]))]``,
that prints as what it is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from mi_ref._typing import Array, Namespace
from mi_ref.errors import HookError
from mi_ref.hook_points import HookPoint
from mi_ref.hooks import Hook


@dataclass(frozen=True, slots=True)
class Intervention(ABC):
    """An edit that says where it acts.

    Attributes
    ----------
    positions : sequence of int or None
        Which positions; negative ones count from the end of the prompt's columns. None for all.
    heads : sequence of int or None
        Which heads, at sites that have heads; None for all.
    """

    positions: Sequence[int] | None = None
    heads: Sequence[int] | None = None

    @abstractmethod
    def change(self, x: Array, xp: Namespace) -> Array:
        """Return what takes the place of `x` at these positions and heads."""

    def __call__(self, x: Array, hook: Hook) -> Array:
        """Return `x` changed where this acts."""
        assert hook.backend is not None
        xp, axes = hook.backend.xp, hook.point.site.axes
        mask = None
        for axis, chosen in ((_pos_axis(axes), self.positions), (_head_axis(axes), self.heads)):
            if chosen is None or axis is None:
                continue
            if hook.pos is not None and axes[axis] == "pos":
                # One position at a time passes here.
                assert hook.n_pos is not None
                if hook.pos not in {place % hook.n_pos for place in chosen}:
                    return x
                continue
            size = x.shape[axis]
            wanted = {place % size for place in chosen}
            flags = xp.asarray([n in wanted for n in range(size)], device=x.device)
            shape = [size if n == axis else 1 for n in range(x.ndim)]
            flags = xp.reshape(flags, tuple(shape))
            mask = flags if mask is None else xp.logical_and(mask, flags)
        changed = self.change(x, xp)
        return changed if mask is None else xp.where(mask, changed, x)

    def check(self, entry: HookPoint, n_pos: int) -> None:
        """Refuse positions or heads that the point does not have.

        Raises
        ------
        HookError
            Saying which.
        """
        axes = entry.axes
        for what, chosen, axis in (
            ("positions", self.positions, _pos_axis(axes)),
            ("heads", self.heads, _head_axis(axes)),
        ):
            if chosen is None:
                continue
            if axis is None:
                raise HookError(f"{self!r} at {entry.point!r}: that has no {what} to choose from.")
            size = entry.sizes(1, n_pos)[axis]
            outside = [n for n in chosen if not -size <= n < size]
            if outside or not chosen:
                raise HookError(
                    f"{self!r} at {entry.point!r}: {what} {outside or 'none'} of {size}; name some"
                    f" from {-size} to {size - 1}."
                )


@dataclass(frozen=True, slots=True)
class Scale(Intervention):
    """Multiply with `factor`: 0 removes, 1 changes nothing, -1 turns round."""

    factor: float = 0.0

    def change(self, x: Array, xp: Namespace) -> Array:
        """Return `x` times the factor."""
        return x * self.factor


@dataclass(frozen=True, slots=True)
class Fill(Intervention):
    """Put one number in the place of all."""

    value: float = 0.0

    def change(self, x: Array, xp: Namespace) -> Array:
        """Return the number in the shape of `x`."""
        return xp.full_like(x, self.value)


@dataclass(frozen=True, slots=True)
class Bypass(Intervention):
    """Let the position after each of these read what that one reads itself.

    At ``at.rwkv_shift`` and ``at.mlp_shift``: the token after them sees the one before them.
    """

    def change(self, x: Array, xp: Namespace) -> Array:
        """Return `x`: `__call__` does it all."""
        return x

    def __call__(self, x: Array, hook: Hook) -> Array:
        """Return `x` with columns taken from before the bypassed positions."""
        assert hook.backend is not None
        xp, n_pos = hook.backend.xp, x.shape[1]
        skipped = {place % n_pos for place in self.positions or ()}
        source: list[int] = []
        for pos in range(n_pos):
            source.append(source[pos - 1] if pos - 1 in skipped else pos)
        columns = xp.asarray(source, dtype=xp.int64, device=x.device)
        return xp.take(x, columns, axis=1)


def _pos_axis(axes: Sequence[str]) -> int | None:
    return next((n for n, axis in enumerate(axes) if axis in ("pos", "query_pos")), None)


def _head_axis(axes: Sequence[str]) -> int | None:
    return next((n for n, axis in enumerate(axes) if axis in ("head", "kv_head")), None)
