"""``model.run(..., check_edits=True)``: notice edits that change nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from mi_ref._typing import Array
from mi_ref.backend import Backend
from mi_ref.edits.intervention import Intervention
from mi_ref.errors import HookError
from mi_ref.hooks.capture import Edit, Hook
from mi_ref.hooks.places import pos_axis
from mi_ref.hooks.sites import Point


@dataclass(slots=True)
class Watched:
    """An edit at one point that remembers whether it ever changed a value there."""

    edit: Edit
    point: Point
    backend: Backend
    changed: bool = field(default=False, init=False)

    @property
    def pure(self) -> bool:
        """Whether the edit leaves its argument as it is."""
        return isinstance(self.edit, Intervention) and self.edit.pure

    def __call__(self, x: Array, hook: Hook) -> Array:
        """Return the edit's result for `x`."""
        before = x if self.pure else self.backend.xp.asarray(x, copy=True)
        if callable(self.edit):
            after = self.edit(x, hook)
            after = x if after is None else after
        else:
            after = self.edit if hook.pos is None else self.edit[:, hook.pos : hook.pos + 1, ...]
        self.changed = self.changed or self._differs(before, after, hook)
        return after

    def _differs(self, before: Array, after: Array, hook: Hook) -> bool:
        # The caller refuses an array that does not fit, with a better message.
        if type(after) is not type(before) or after.shape != before.shape:
            return True
        xp = self.backend.xp
        both_nan = xp.logical_and(before != before, after != after)
        differs = xp.logical_not(xp.logical_or(before == after, both_nan))
        return bool(xp.any(self._at_tokens(differs, hook)))

    def _at_tokens(self, differs: Array, hook: Hook) -> Array:
        """Return where tokens differ: activations at pads mean nothing."""
        axes, xp = self.point.site.axes, self.backend.xp
        axis = pos_axis(axes)
        if hook.padding is None or axis is None:
            return differs
        mask = hook.padding.mask(self.backend)
        if hook.pos is not None:
            mask = mask[:, hook.pos : hook.pos + 1]
        if differs.shape[axis] != mask.shape[1]:  # logits of the last tokens alone
            return differs
        sizes = tuple(differs.shape[n] if n in (0, axis) else 1 for n in range(differs.ndim))
        return xp.logical_and(differs, xp.reshape(mask, sizes))

    def __str__(self) -> str:
        edit = self.edit
        if isinstance(edit, Intervention):
            said = repr(edit)
        elif callable(edit):
            said = f"the function {getattr(edit, '__qualname__', repr(edit))}"
        else:
            said = f"an array of shape {tuple(edit.shape)}"
        return f"{said} at {self.point!r}"


def refuse_idle(watched: Iterable[Watched]) -> None:
    """Refuse edits that left every value at their point as it was.

    Raises
    ------
    HookError
        Listing all of them.
    """
    idle = [str(each) for each in watched if not each.changed]
    if idle:
        raise HookError(
            f"check_edits=True: {len(idle)} edit{'s' * (len(idle) > 1)} changed no value where"
            f" {'they act' if len(idle) > 1 else 'it acts'}: {'; '.join(idle)}. Check the"
            " positions, heads and rows, and the array; or leave check_edits out."
        )
