"""The tap: where the forward pass hands over an activation, ``x = tap(at.resid_mid, x)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mi_ref._typing import Array
from mi_ref.sites import Point, Site
from mi_ref.steps import Steps


class Hooks(Protocol):
    """What a tap asks of the plan of a call."""

    def fire(self, point: Point, x: Array) -> Array:
        """Do everything asked for at `point` and return what flows on."""

    def edits(self, point: Point) -> bool:
        """Whether this call edits at `point`, at which something is asked."""

    def steps(self, point: Point) -> Steps:
        """Return what is asked at a `point` that is passed position by position."""


class Tap:
    """The hooks of one layer, or of the global sites.

    Parameters
    ----------
    hooks : Hooks
        Those of the call.
    points : mapping
        The points at which something is asked, by their site.
    """

    __slots__ = ("_hooks", "_points")

    def __init__(self, hooks: Hooks, points: Mapping[Site, Point]) -> None:
        self._hooks = hooks
        self._points = points

    def __call__(self, site: Site, x: Array) -> Array:
        """Return what flows on from `site`."""
        point = self._points.get(site)
        return x if point is None else self._hooks.fire(point, x)

    def wants(self, *sites: Site) -> bool:
        """Whether anything is asked at one of these sites."""
        return any(site in self._points for site in sites)

    def edits(self, site: Site) -> bool:
        """Whether what passes at this site may be changed."""
        point = self._points.get(site)
        return point is not None and self._hooks.edits(point)

    def steps(self, site: Site) -> Steps | None:
        """Return what is asked at a site that is passed position by position."""
        point = self._points.get(site)
        return None if point is None else self._hooks.steps(point)


class _NoTap(Tap):
    """The tap of a layer at which nothing is asked: as good as absent."""

    __slots__ = ()

    def __init__(self) -> None:
        pass

    def __call__(self, site: Site, x: Array) -> Array:
        """Return `x`."""
        return x

    def wants(self, *sites: Site) -> bool:
        """Return False."""
        return False

    def edits(self, site: Site) -> bool:
        """Return False."""
        return False

    def steps(self, site: Site) -> None:
        """Return None."""


NO_TAP = _NoTap()
