"""Find every region of the plane in which AlgZoo's M(2,2) is linear, with its matrix.

Without biases a region is a sector between two rays. Step one's neurons switch where x0 = 0; on
either side of it each neuron of step two switches at one ray. They are solved for in fractions of
the weights, so that none is too narrow to be found; neighbours with one matrix are one region.
Runs offline, from the repository's folder, since it imports `second_argmax`::

    python -m examples.second_argmax_regions
"""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from math import atan2, degrees
from typing import Any, TypeAlias

import numpy as np

from examples.second_argmax import M22, Net
from mi_ref.tables import Table

Region: TypeAlias = tuple[float, Any]  # where it begins, in degrees; logits = matrix @ (x0, x1)


def sectors(net: Net, sign: int) -> list[Region]:
    """Return the sectors where x0 has one sign, counter-clockwise; `net` is of fractions."""
    w_ih, w_hh, w_oh = net
    heard = w_hh @ np.maximum(sign * w_ih, 0)  # What step two hears of step one where x0 = sign.
    # There a ray is a height: the x1 at which a neuron of step two is zero.
    rays = sorted({-h / w for h, w in zip(heard, w_ih, strict=True) if w}, reverse=sign < 0)
    inside = [rays[0] - sign, *((a + b) / 2 for a, b in pairwise(rays)), rays[-1] + sign]
    starts = [-90.0 * sign, *(degrees(atan2(ray, sign)) for ray in rays)]
    slopes = np.stack([heard * sign, w_ih], axis=1)
    kept = ((heard + w_ih * height > 0)[:, None] * slopes for height in inside)
    return [(start % 360, w_oh @ active) for start, active in zip(starts, kept, strict=True)]


def regions(net: Net) -> list[Region]:
    """Return the regions of a network with two inputs, counter-clockwise from x0 = 0, x1 < 0."""
    fraction = np.vectorize(Fraction, otypes=[object])
    exact: Net = tuple(fraction(np.asarray(weights, np.float64)) for weights in net)
    found = [*sectors(exact, 1), *sectors(exact, -1)]
    new = [here for n, here in enumerate(found) if np.any(here[1] != found[n - 1][1])]
    return new or found[:1]


def main() -> list[Region]:
    """Print and return the regions of M(2,2)."""
    found = regions(M22)
    table = Table([">from", ">to", "logit 0", "logit 1"], f"{len(found)} linear regions, degrees")
    for (start, matrix), (end, _) in zip(found, found[1:] + found[:1], strict=True):
        rows = (f"{float(a):+9.2f} x0 {float(b):+9.2f} x1" for a, b in matrix)
        table.add(f"{start:.2f}", f"{end:.2f}", *rows)
    table.print()
    return found


if __name__ == "__main__":
    main()
