"""What one call captures and edits, checked before any compute, and done as the pass goes.

Order at one point: captures asked for before the edits, then the edits in the order given, each
seeing the last one's result, then the other captures. Nothing outlives the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mi_ref._typing import Array
from mi_ref.backend import Backend
from mi_ref.edits.idle import Watched, refuse_idle
from mi_ref.edits.intervention import Intervention, refuse_pads
from mi_ref.errors import ArgumentError, HookError
from mi_ref.forward.steps import Steps
from mi_ref.forward.tap import NO_TAP as NO_TAP, Tap as Tap
from mi_ref.hooks.capture import Capture, CaptureLike, Edit, Edits, Hook, Positions
from mi_ref.hooks.catalog import HookPoint, HookPoints
from mi_ref.hooks.kept_positions import kept_positions
from mi_ref.hooks.places import pos_axis
from mi_ref.hooks.selectors import Selector, select
from mi_ref.hooks.shape_check import shape_check
from mi_ref.hooks.sites import Point, Site, at
from mi_ref.text.padding import Padding


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Pass:
    """One forward pass: what it runs, on how much.

    Attributes
    ----------
    layers : range
        The layers that it runs.
    sites : frozenset of Site
        The global sites that it reaches.
    batch, n_pos : int
        Size of the prompt.
    n_keys : int
        How many positions its queries can look at, the prompt's own being the last of them.
    first_pos : int
        The position of the prompt's first token in the whole text.
    out_pos : int
        How many positions are unembedded.
    padding : Padding or None
        Where each row's tokens stand, if there are pads.
    like : Array
        Any array of the model: activations share its type, dtype and device.
    backend : Backend
        The model's.
    """

    layers: range
    sites: frozenset[Site]
    batch: int
    n_pos: int
    n_keys: int
    first_pos: int = 0
    out_pos: int
    padding: Padding | None
    like: Array
    backend: Backend

    def reaches(self, point: Point) -> bool:
        """Whether it passes this point."""
        return point.site in self.sites if point.layer is None else point.layer in self.layers

    def whole(self, point: Point) -> bool:
        """Whether every position of the prompt reaches this point."""
        return point is not at.logits or self.out_pos == self.n_pos

    def shape(self, entry: HookPoint) -> tuple[int, ...]:
        """Return the shape that the activation at a point has."""
        n_pos = self.n_pos if self.whole(entry.point) else self.out_pos
        return entry.sizes(self.batch, n_pos, self.n_keys)


@dataclass(slots=True)
class _Actions:
    """Everything that happens at one point."""

    entry: HookPoint
    edits: list[Edit] = field(default_factory=list)
    capture: Capture | None = None


class HookPlan:
    """The hooks of one call, resolved against a model's points.

    Parameters
    ----------
    points : HookPoints
        The model's.
    captures, edits
        As given by the caller.
    over : Pass
        What the call runs.
    check_edits : bool
        Whether `check_fired` refuses edits that changed nothing.

    Raises
    ------
    HookError
        If a selector selects nothing in this model, or nothing that this call reaches.
    ShapeError
        If an array that is to replace an activation does not fit it.
    ArgumentError
        If something is neither a selector nor an edit.
    """

    def __init__(
        self,
        points: HookPoints,
        captures: Sequence[CaptureLike],
        edits: Edits,
        over: Pass,
        *,
        check_edits: bool,
    ) -> None:
        self._pass = over
        self._watched: list[Watched] | None = [] if check_edits else None
        self._actions: dict[Point, _Actions] = {}
        self.captured: dict[Point, Array] = {}
        self._fired: set[Point] = set()
        for item in captures:
            wanted = item if isinstance(item, Capture) else Capture(item, False, None)
            for point in select(wanted.selector, points, over.reaches):
                self._add_capture(points, point, wanted)
        for selector, edit in _pairs(edits):
            for point in select(selector, points, over.reaches):
                self._add_edit(points, point, edit)
        self._by_layer: dict[int | None, dict[Site, Point]] = {}
        for point in self._actions:
            self._by_layer.setdefault(point.layer, {})[point.site] = point

    def tap(self, layer: int | None) -> Tap:
        """Return the tap of a layer, or of the global sites; `NO_TAP` if nothing is asked there."""
        # Made on demand: a tap kept here would make a cycle, and what this call captured would
        # stay in memory until the garbage collector ran.
        points = self._by_layer.get(layer)
        return NO_TAP if points is None else Tap(self, points)

    def check_fired(self) -> None:
        """Refuse to return from a pass that missed a point, or whose edits did nothing."""
        missed = [repr(point) for point in self._actions if point not in self._fired]
        if missed:
            raise HookError(
                f"the forward pass never reached {', '.join(missed)}, so the result would lack"
                " what was asked for. A site added with with_sites needs code that taps it; else"
                " this is a defect of mi_ref: report it with your call."
            )
        refuse_idle(self._watched or ())

    def steps(self, point: Point) -> Steps:
        """Return what is asked at a `point` that is passed position by position."""
        actions = self._actions[point]
        self._fired.add(point)
        wanted, n_pos = actions.capture, self._pass.n_pos
        chosen: list[int] = []
        if wanted is not None:
            everywhere = range(n_pos) if wanted.pos is None else wanted.pos
            chosen = kept_positions(everywhere, actions.entry, n_pos)

        def edit_all(x: Array, pos: int) -> Array:
            for edit in actions.edits:
                own = edit if callable(edit) else edit[:, pos : pos + 1, ...]
                x = self._apply(own, x, actions.entry, pos)
            return x

        def keep(captured: Array) -> None:
            self.captured[point] = captured

        early = wanted is not None and wanted.before_edits
        editing = edit_all if actions.edits else None
        return Steps(chosen, early, editing, keep, self._pass.backend.xp)

    def fire(self, point: Point, x: Array) -> Array:
        """Do everything asked for at `point` and return what flows on."""
        actions = self._actions[point]
        self._fired.add(point)
        wanted = actions.capture
        if wanted is not None and wanted.before_edits:
            self.captured[point] = self._cut(x, actions.entry, wanted.pos)
        for edit in actions.edits:
            x = self._apply(edit, x, actions.entry)
        if wanted is not None and not wanted.before_edits:
            self.captured[point] = self._cut(x, actions.entry, wanted.pos)
        return x

    def _add_capture(self, points: HookPoints, point: Point, wanted: Capture) -> None:
        actions = self._actions.setdefault(point, _Actions(points.at(point)))
        old = actions.capture
        options = (wanted.before_edits, wanted.pos)
        if old is not None and (old.before_edits, old.pos) != options:
            raise HookError(
                f"{point!r} is to be captured twice with different options (before_edits="
                f"{old.before_edits}, pos={old.pos}; then before_edits={options[0]},"
                f" pos={options[1]}). A call keeps one array per point: use two calls."
            )
        if wanted.pos is not None:
            if pos_axis(actions.entry.axes) is None:
                raise HookError(f"pos={wanted.pos!r}: {point!r} has no positions. Leave pos= out.")
            kept_positions(wanted.pos, actions.entry, self._pass.n_pos)
        actions.capture = wanted

    def _add_edit(self, points: HookPoints, point: Point, edit: Edit) -> None:
        actions = self._actions.setdefault(point, _Actions(points.at(point)))
        if not actions.entry.editable:
            raise HookError(f"{point!r} can be captured but not edited: it is derived from others.")
        shape, padding = self._pass.shape(actions.entry), self._pass.padding
        if isinstance(edit, Intervention):
            edit.check(actions.entry, shape)
            # Logits of the last tokens alone have no columns of pads.
            if padding is not None and self._pass.whole(point):
                refuse_pads(edit, actions.entry, padding)
        if not callable(edit):
            shape_check(edit, shape, self._pass.like, actions.entry, "the replacement")
        if self._watched is not None:
            edit = Watched(edit, point, self._pass.backend)
            self._watched.append(edit)
        actions.edits.append(edit)

    def _apply(self, edit: Edit, x: Array, entry: HookPoint, pos: int | None = None) -> Array:
        # What comes from the caller is copied: the caller may fill the same buffer again, in this
        # pass or after it, and neither this pass nor a capture may change with it.
        if not callable(edit):
            return self._taken(edit, x)
        # A function may change its argument in place and return nothing, as in TransformerLens:
        # it gets a copy, because x may be a capture of another point too.
        pure = isinstance(edit, Intervention | Watched) and edit.pure
        own = x if pure else self._pass.backend.xp.asarray(x, copy=True)
        changed = edit(own, self._hook(entry.point, pos))
        if changed is None:
            return own
        shape_check(changed, x.shape, x, entry, "what the edit returned")
        return self._taken(changed, x)

    def _hook(self, point: Point, pos: int | None) -> Hook:
        return Hook(
            name=str(point),
            layer=point.layer,
            point=point,
            pos=pos,
            n_pos=self._pass.n_pos,
            first_pos=self._pass.first_pos,
            padding=self._pass.padding,
            backend=self._pass.backend,
        )

    def _cut(self, x: Array, entry: HookPoint, pos: Positions | None) -> Array:
        if pos is None:
            return x
        axis = pos_axis(entry.axes)
        assert axis is not None  # Checked when the capture was added.
        chosen = kept_positions(pos, entry, x.shape[axis])
        xp = self._pass.backend.xp
        return xp.take(x, xp.asarray(chosen, device=x.device), axis=axis)

    def _taken(self, value: Array, x: Array) -> Array:
        """Return a copy of the caller's `value` that stands in for `x`."""
        backend = self._pass.backend
        return backend.ops.lay_out(backend.xp.asarray(value, copy=True), x)


def _pairs(edits: Edits) -> list[tuple[Selector, Edit]]:
    pairs = list(edits.items() if isinstance(edits, Mapping) else edits)
    wrong = [pair for pair in pairs if not isinstance(pair, tuple | list) or len(pair) != 2]
    if wrong:
        raise ArgumentError(
            f"edits holds {wrong[0]!r}, which is not a (selector, edit) pair: write"
            " edits=[(at.z[0], function)] or edits={at.z[0]: function}."
        )
    return pairs
