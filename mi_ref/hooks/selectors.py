"""Selectors: the ways to name hook points, resolved against one model's points."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, SupportsIndex, TypeAlias

from mi_ref.errors import ArgumentError, HookError
from mi_ref.hooks.catalog import HookPoints
from mi_ref.hooks.names import named_site, parse_point
from mi_ref.hooks.sites import GlobalSite, LayerPoint, LayerSite, LayerSpan, Point, Site

Selector: TypeAlias = (
    GlobalSite | LayerPoint | LayerSpan | str | tuple[Any, ...] | Callable[[str], bool]
)
"""A point (``at.q[3]``), a slice (``at.q[2:5]``), a string, a glob (``"blocks.*.attn.hook_q"``),
a tuple (``("q", 3)``), or a predicate on TransformerLens' string. Globs and predicates skip lazy
points, such as ``at.result``, unless they match nothing else."""


def select(
    selector: Selector, points: HookPoints, passed: Callable[[Point], bool]
) -> tuple[Point, ...]:
    """Return the points that `selector` selects, in forward order; at least one.

    Parameters
    ----------
    selector : Selector
        What the caller gave.
    points : HookPoints
        The model's.
    passed : callable
        Whether this call reaches a point. Selectors of many points take those that are reached;
        one that names a single point which is not reached is an error.

    Raises
    ------
    HookError
        If nothing is selected, or what is selected does not exist here or is not reached.
    ArgumentError
        If `selector` is not a selector.
    """
    if isinstance(selector, str) and any(mark in selector for mark in "*?["):
        return _matching(selector, lambda name: fnmatchcase(name, selector), points, passed)
    if isinstance(selector, LayerSpan):
        _refuse_absent(selector.site, points)
        found: list[Point] = [
            selector.site[layer] for layer in sorted(selector.layers(points.n_layers))
        ]
        # If some layers lack a site, a slice selects those that have it.
        present = [point for point in found if points.absence(point) is None]
        if found and not present:
            _refuse_absent(found[0], points)
        return _some(selector, present, passed)
    if isinstance(selector, LayerSite):
        raise HookError(f"{selector!r} is a site: write {selector!r}[:] for every layer.")
    if not isinstance(selector, GlobalSite | LayerPoint | str | tuple):
        if not callable(selector):
            raise ArgumentError(
                f"{selector!r} is not a selector: expected a hook point, a slice of a site, a"
                " string, a tuple or a predicate."
            )
        return _matching(selector, selector, points, passed)
    point = resolve(selector, points)
    if not passed(point):
        raise HookError(
            f"{point!r} exists, but this call does not reach it: see its start_at_layer,"
            " stop_at_layer and logits arguments."
        )
    return (point,)


def resolve(selector: Selector, points: HookPoints) -> Point:
    """Return the one point that `selector` names, its layer counted from the front.

    Raises
    ------
    HookError
        If it names none, several, or one that this model does not have.
    """
    added = points.added
    match selector:
        case str():
            point: Point = parse_point(selector, added)
        case (str(name),):
            point = parse_point(named_site(name, added).string, added)
        case (str(name), SupportsIndex() as layer):
            site = named_site(name, added)
            if isinstance(site, GlobalSite):
                raise HookError(f"{site!r} belongs to no layer: leave out the {layer}.")
            point = site[layer]
        case GlobalSite() | LayerPoint():
            point = selector
        case _:
            raise ArgumentError(
                f"{selector!r} does not name one hook point: expected a point, a string or a tuple."
            )
    _refuse_absent(point.site, points)
    if isinstance(point, LayerPoint):
        n_layers = points.n_layers
        if not -n_layers <= point.layer < n_layers:
            raise HookError(f"{point!r}: this model's layers are 0 to {n_layers - 1}.")
        point = point.site[point.layer % n_layers]
        _refuse_absent(point, points)
    return point


def _matching(
    selector: Selector,
    accepts: Callable[[str], bool],
    points: HookPoints,
    passed: Callable[[Point], bool],
) -> tuple[Point, ...]:
    found = [entry.point for entry in points if accepts(str(entry.point))]
    if not found:
        what = repr(selector) if isinstance(selector, str) else f"the predicate {selector!r}"
        raise HookError(
            f"{what} matches none of this model's {len(points)} hook points."
            " print(model.hook_points) lists them."
        )
    # A broad pattern selects what the pass computes anyway; lazy points have to be named.
    eager = [point for point in found if not points.at(point).lazy]
    return _some(selector, eager or found, passed)


def _some(
    selector: Selector, found: list[Point], passed: Callable[[Point], bool]
) -> tuple[Point, ...]:
    reached = tuple(point for point in found if passed(point))
    if not reached:
        raise HookError(f"{selector!r} selects no point this call reaches.")
    return reached


def _refuse_absent(where: Point | Site, points: HookPoints) -> None:
    if (reason := points.absence(where)) is not None:
        raise HookError(f"{where!r} does not exist in this model: {reason}.")
    site = where if isinstance(where, LayerSite) else where.site
    if site not in points.sites:
        raise HookError(f"{where!r} is not a site of this model.")
