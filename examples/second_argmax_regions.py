"""Find every region of the plane in which AlgZoo's M(2,2) is linear, and so where it is wrong.

Without biases a region is a sector between two rays, with one matrix inside. The network changes
its answer where its two logits are equal, on rays that the matrices determine; the right answer
changes at 45 and at 225 degrees. A normal input has any direction with equal chance, so the sector
between the two is the share of wrong answers, and no sampling is needed. Runs offline::

    python examples/second_argmax_regions.py [--model NAME]
"""

from __future__ import annotations

from math import atan2, degrees

from mi_ref import algzoo
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

RIGHT = (45.0, 225.0)


def turns(region: algzoo.Region) -> list[float]:
    """Return the directions in a region, in degrees, where both logits are equal."""
    (a, b), (c, d) = region.matrix
    ray = degrees(atan2(a - c, d - b))  # Of (d - b, a - c), which both rows answer alike.
    return [x % 360 for x in (ray, ray + 180) if (x - region.start) % 360 < region.width]


def main(name: str = "second-argmax-h2-n2") -> tuple[tuple[algzoo.Region, ...], float]:
    """Print and return the regions, and the share of inputs with a wrong answer."""
    network = algzoo.load(name)
    assert isinstance(network, algzoo.Rnn)
    found, wrong = algzoo.regions(network), 0.0
    heads = [">from", ">to", "logit 0", "logit 1", ">answer changes"]
    table = Table(heads, f"{len(found)} linear regions, degrees")
    for region in found:
        rows = (f"{float(a):+9.2f} x0 {float(b):+9.2f} x1" for a, b in region.matrix)
        changes = turns(region)
        wrong += sum(min(abs(angle - right) for right in RIGHT) for angle in changes) / 360
        stop = (region.start + region.width) % 360
        table.add(f"{region.start:.2f}", f"{stop:.2f}", *rows,
                  ", ".join(f"{angle:.3f}" for angle in changes))  # fmt: skip
    table.print()
    print(f"wrong for {wrong:.4%} of all inputs")
    return found, wrong


if __name__ == "__main__":
    run(main)
