"""The tap: where the forward pass hands over an activation, ``x = tap(at.resid_mid, x)``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from mi_ref._typing import Array
from mi_ref.forward.steps import Steps
from mi_ref.hooks.sites import Point, Site


class Hooks(Protocol):
    """What a tap asks of the plan of a call."""

    def fire(self, point: Point, x: Array) -> Array:
        """Do everything asked for at `point` and return what flows on."""

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

    __slots__ = ("_held", "_hooks", "_points")

    def __init__(self, hooks: Hooks, points: Mapping[Site, Point]) -> None:
        self._hooks = hooks
        self._points = points
        self._held: list[Array] = []

    def __call__(self, site: Site, x: Array) -> Array:
        """Return what flows on from `site`."""
        point = self._points.get(site)
        if point is None:
            return x
        x = self._hooks.fire(point, x)
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
        return None if point is None else self._hooks.steps(point)


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
