"""What one call wants read and changed, checked before any compute, and the tap that does it.

Order at one point: captures asked for before the edits, then the edits in the order given, each
seeing the last one's result, then the other captures. Nothing outlives the call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mi_ref._typing import Array
from mi_ref.backend import Backend
from mi_ref.edit_guard import Watched, refuse_idle
from mi_ref.errors import HookError
from mi_ref.fits import check_fits
from mi_ref.hook_points import HookPoint, HookPoints
from mi_ref.hooks import Capture, CaptureLike, Edit, Edits, Hook, Positions
from mi_ref.interventions import Intervention, refuse_pads
from mi_ref.kept_positions import kept_positions, pos_axis
from mi_ref.padding import Padding
from mi_ref.selection import Selector, select
from mi_ref.sites import Point, Site, at
from mi_ref.steps import Steps


@dataclass(slots=True)
class _Actions:
    """All that happens at one point."""

    entry: HookPoint
    edits: list[Edit] = field(default_factory=list)
    capture: Capture | None = None


class HookPlan:
    """The hooks of one call, settled against a model's points.

    Parameters
    ----------
    points : HookPoints
        The model's.
    captures, edits
        As given by the caller.
    layers : range
        The layers that this call runs.
    sites : frozenset of Site
        The global sites that this call passes.
    batch, n_pos, out_pos : int
        Size of the prompt, and how many positions are unembedded.
    like : Array
        Any array of the model: activations share its type, dtype and device.
    backend : Backend
        Of the model.
    padding : Padding or None
        Where each row's tokens stand, if there are pads.
    check_edits : bool
        Whether `check_fired` refuses edits that changed nothing.

    Raises
    ------
    HookError
        If a selector names nothing in this model, or nothing that this call passes.
    ShapeError
        If an array that is to replace an activation does not fit it.
    """

    def __init__(
        self,
        points: HookPoints,
        captures: Sequence[CaptureLike],
        edits: Edits,
        *,
        layers: range,
        sites: frozenset[Site],
        batch: int,
        n_pos: int,
        out_pos: int,
        like: Array,
        backend: Backend,
        padding: Padding | None,
        check_edits: bool,
    ) -> None:
        self._backend = backend
        self._padding = padding
        self._watched: list[Watched] | None = [] if check_edits else None
        self._like = like
        self._size = (batch, n_pos, out_pos)
        self._actions: dict[Point, _Actions] = {}
        self.captured: dict[Point, Array] = {}
        self._fired: set[Point] = set()

        def passed(point: Point) -> bool:
            return point.layer in layers if point.layer is not None else point.site in sites

        for item in captures:
            wanted = item if isinstance(item, Capture) else Capture(item, False, None)
            for point in select(wanted.selector, points, passed):
                self._add_capture(points, point, wanted)
        for selector, edit in _pairs(edits):
            for point in select(selector, points, passed):
                self._add_edit(points, point, edit)
        self._by_layer: dict[int | None, dict[Site, Point]] = {}
        for point in self._actions:
            self._by_layer.setdefault(point.layer, {})[point.site] = point

    def tap(self, layer: int | None) -> Tap:
        """Return the tap of a layer, or of the global sites; `NO_TAP` if nothing is asked there."""
        # Made on demand: a tap kept here would make a cycle, and what this call captured would
        # stay in memory until the garbage collector came by.
        points = self._by_layer.get(layer)
        return NO_TAP if points is None else Tap(self, points)

    def check_fired(self) -> None:
        """Refuse to return from a pass that missed a point, or whose edits did nothing."""
        missed = [repr(point) for point in self._actions if point not in self._fired]
        if missed:
            raise HookError(
                f"the forward pass never came by {', '.join(missed)}, so the result would lack"
                " what was asked for. This is a defect of mi_ref: report it with your call."
            )
        refuse_idle(self._watched or ())

    def steps(self, point: Point) -> Steps:
        """Return what is asked at a `point` that is passed position by position."""
        actions = self._actions[point]
        self._fired.add(point)
        wanted, n_pos = actions.capture, self._size[1]
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
        return Steps(chosen, early, editing, keep, self._backend.xp)

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
            kept_positions(wanted.pos, actions.entry, self._size[1])
        actions.capture = wanted

    def _add_edit(self, points: HookPoints, point: Point, edit: Edit) -> None:
        actions = self._actions.setdefault(point, _Actions(points.at(point)))
        if not actions.entry.editable:
            raise HookError(f"{point!r} can be captured but not edited: it is derived from others.")
        batch, n_pos, out_pos = self._size
        here = out_pos if point is at.logits else n_pos
        if isinstance(edit, Intervention):
            edit.check(actions.entry, batch, here)
            if self._padding is not None and here == n_pos:
                refuse_pads(edit, actions.entry, self._padding)
        if not callable(edit):
            shape = actions.entry.sizes(batch, here)
            check_fits(edit, shape, self._like, actions.entry, "the replacement")
        if self._watched is not None:
            edit = Watched(edit, point, self._backend)
            self._watched.append(edit)
        actions.edits.append(edit)

    def _apply(self, edit: Edit, x: Array, entry: HookPoint, pos: int | None = None) -> Array:
        # What comes from the caller is copied: the caller may fill the same buffer again, in this
        # pass or after it, and neither this pass nor a capture may change with it.
        if not callable(edit):
            return self._taken(edit, x)
        # A function may change its argument in place and return nothing, as in TransformerLens:
        # it gets a copy, because x may be a capture of another point too.
        own = self._backend.xp.asarray(x, copy=True)
        point = entry.point
        where = Hook(
            str(point), point.layer, point, pos, self._size[1], self._padding, self._backend
        )
        changed = edit(own, where)
        if changed is None:
            return own
        check_fits(changed, x.shape, x, entry, "what the edit returned")
        return self._taken(changed, x)

    def _cut(self, x: Array, entry: HookPoint, pos: Positions | None) -> Array:
        if pos is None:
            return x
        axis = pos_axis(entry.axes)
        assert axis is not None  # Every site has positions.
        chosen = kept_positions(pos, entry, x.shape[axis])
        xp = self._backend.xp
        return xp.take(x, xp.asarray(chosen, device=x.device), axis=axis)

    def _taken(self, value: Array, x: Array) -> Array:
        """Return a copy of the caller's `value` that stands in for `x`."""
        return self._backend.ops.lay_out(self._backend.xp.asarray(value, copy=True), x)


class Tap:
    """Where the forward pass hands over an activation: ``x = tap(at.resid_mid, x)``."""

    __slots__ = ("_held", "_plan", "_points")

    def __init__(self, plan: HookPlan, points: Mapping[Site, Point]) -> None:
        self._plan = plan
        self._points = points
        self._held: list[Array] = []

    def __call__(self, site: Site, x: Array) -> Array:
        """Return what flows on from `site`."""
        point = self._points.get(site)
        if point is None:
            return x
        x = self._plan.fire(point, x)
        self._held.append(x)
        return x

    def free(self, x: Array) -> bool:
        """Whether nobody but the pass holds `x`, so that an operation may overwrite it."""
        # By identity: a view of a held array would pass for free.
        return not any(x is held for held in self._held)

    def wants(self, *sites: Site) -> bool:
        """Whether anything is asked at one of these sites."""
        return any(site in self._points for site in sites)

    def steps(self, site: Site) -> Steps | None:
        """Return what is asked at a site that is passed position by position."""
        point = self._points.get(site)
        return None if point is None else self._plan.steps(point)


class _NoTap(Tap):
    """The tap of a layer at which nothing is asked: as good as absent."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __call__(self, site: Site, x: Array) -> Array:
        """Return `x`."""
        return x

    def free(self, x: Array) -> bool:
        """Return True."""
        return True

    def wants(self, *sites: Site) -> bool:
        """Return False."""
        return False

    def steps(self, site: Site) -> None:
        """Return None."""


NO_TAP = _NoTap()


def _pairs(edits: Edits) -> list[tuple[Selector, Edit]]:
    pairs = list(edits.items() if isinstance(edits, Mapping) else edits)
    wrong = [pair for pair in pairs if not isinstance(pair, tuple | list) or len(pair) != 2]
    if wrong:
        raise HookError(
            f"edits holds {wrong[0]!r}, which is no pair of a selector and an edit: write"
            " edits=[(at.z[0], function)] or edits={at.z[0]: function}."
        )
    return pairs
