"""Numbers and sites as callers give them, read as plain ones, or refused.

A number of an array library would run through an analysis and fail where the result is saved; one
that is not finite would make every value of the result NaN.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from mi_ref.errors import HookError, ShapeError
from mi_ref.hooks.sites import LayerSite
from mi_ref.whole_numbers import whole_number


def whole(number: Any, what: str) -> int:
    """Return a whole number as Python's own.

    Raises
    ------
    ShapeError
        If it is something else; true and false do not count as numbers.
    """
    try:
        return whole_number(number)
    except TypeError:
        raise ShapeError(f"{what}={number!r}: a whole number is needed.") from None


def finite(numbers: Any, what: str) -> list[float]:
    """Return numbers, a sequence of them or an array with one axis, as Python's own.

    Raises
    ------
    ShapeError
        If one is infinite or NaN, or they are not a sequence.
    """
    plain = numbers.tolist() if hasattr(numbers, "tolist") else numbers
    try:
        if isinstance(plain, str) or not isinstance(plain, Iterable):
            raise TypeError
        found = [float(n) for n in plain]
    except (TypeError, ValueError):
        raise ShapeError(f"{what}={numbers!r}: a sequence of numbers is needed.") from None
    if outside := [n for n in found if not math.isfinite(n)]:
        raise ShapeError(f"{what}={numbers!r}: {outside} would make the result NaN.")
    return found


def layer_site(site: Any) -> LayerSite:
    """Return a site that every layer has.

    Raises
    ------
    HookError
        If it is something else, such as a point of one layer.
    """
    if not isinstance(site, LayerSite):
        raise HookError(
            f"site={site!r}: a site of layers is needed, such as at.resid_post, without a layer;"
            " layers= says which."
        )
    return site
