"""Every region of the plane in which an RNN of two numbers is linear: exact, none too narrow.

Without biases a region is a sector between two rays. Neurons of step one switch where x0 = 0; on
either side of it each neuron of step two switches at one ray. They are solved for in fractions of
the weights as they are stored; neighbours with one matrix are one region.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from math import atan2, degrees
from typing import TypeAlias

from mi_ref._typing import Array
from mi_ref.algzoo.rnn import Rnn

Matrix: TypeAlias = tuple[tuple[Fraction, Fraction], ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A sector of the plane; angles in degrees, counter-clockwise from the axis of x0."""

    start: float
    """From 0 to below 360."""
    width: float
    """Over 360 it is the share of standard normal inputs that lie in it."""
    matrix: Matrix
    """By answer: ``logits = matrix @ (x0, x1)``."""


def regions(network: Rnn) -> tuple[Region, ...]:
    """Return the regions of the plane ``(x0, x1)``, counter-clockwise from x0 = 0, x1 < 0."""
    found = [*_half(network, 1), *_half(network, -1)]
    new = [here for n, here in enumerate(found) if here[1] != found[n - 1][1]]
    if not new:
        return (Region(found[0][0] % 360, 360.0, found[0][1]),)
    after = [*(start for start, _ in new[1:]), new[0][0] + 360.0]
    return tuple(
        Region(start % 360, stop - start, matrix)
        for (start, matrix), stop in zip(new, after, strict=True)
    )


def _half(network: Rnn, sign: int) -> list[tuple[float, Matrix]]:
    """Return the sectors where x0 has one sign, each as where it begins and its matrix."""
    w_ih = [weight for (weight,) in _fractions(network, network.W_ih[:, None])]
    w_hh, w_oh = _fractions(network, network.W_hh), _fractions(network, network.W_oh)
    first = [max(sign * weight, Fraction(0)) for weight in w_ih]
    # What each neuron of step two hears of step one where x0 = sign.
    heard = [sum((a * b for a, b in zip(row, first, strict=True)), Fraction(0)) for row in w_hh]
    # There a ray is a height: the x1 at which a neuron of step two is zero.
    rays = sorted({-h / w for h, w in zip(heard, w_ih, strict=True) if w}, reverse=sign < 0)
    inside = [(a + b) / 2 for a, b in pairwise(rays)]
    inside = [rays[0] - sign, *inside, rays[-1] + sign] if rays else [Fraction(0)]
    below = -90.0 if sign > 0 else 90.0
    # Angles rise along the rays, from -90 to 90 degrees and from 90 to 270.
    starts = [below, *(degrees(atan2(ray * sign, 1)) + below + 90.0 for ray in rays)]
    found = []
    for start, height in zip(starts, inside, strict=True):
        slopes = [
            (h * sign, w) if h + w * height > 0 else (Fraction(0), Fraction(0))
            for h, w in zip(heard, w_ih, strict=True)
        ]
        found.append((start, tuple(_row(weights, slopes) for weights in w_oh)))
    return found


def _row(
    weights: list[Fraction], slopes: list[tuple[Fraction, Fraction]]
) -> tuple[Fraction, Fraction]:
    terms = list(zip(weights, slopes, strict=True))
    first = sum((weight * slope[0] for weight, slope in terms), Fraction(0))
    return first, sum((weight * slope[1] for weight, slope in terms), Fraction(0))


def _fractions(network: Rnn, matrix: Array) -> list[list[Fraction]]:
    return [[Fraction(value) for value in row] for row in network.backend.to_host(matrix).tolist()]
