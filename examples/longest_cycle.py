"""Measure the longest cycle of a function of n numbers, as a transformer does.

AlgZoo's transformers (Hilton 2026, alignment.org) read f(0), …, f(n-1); class k is length k + 1.
The bundled one, with 176 weights, gets all functions of four numbers right if cycles are counted as
AlgZoo does. candle-mi counts the path into a cycle as well. Runs offline, or on another of AlgZoo's
networks::

    python examples/longest_cycle.py [--model NAME]
"""

from __future__ import annotations

from collections.abc import Sequence

from mi_ref import algzoo
from mi_ref.cli.script import run


def longest_walk(f: Sequence[int]) -> int:
    """Return the length of the longest walk to unvisited places, candle-mi's longest cycle."""
    best, seen = 0, set[int]()
    for start in range(len(f)):
        walk, at = list[int](), start
        while at not in walk and at not in seen:
            walk, at = [*walk, at], f[at]
        seen.update(walk)
        best = max(best, len(walk))
    return best


def main(name: str = "longest-cycle-h4-n4") -> dict[str, float]:
    """Print the cost of silent layers; print and return the share of right labels, by source."""
    network, task = algzoo.load(name), algzoo.TASKS["longest_cycle"]
    found = algzoo.report(network, task)
    found.print()
    functions = task.draw(network, found.n, 10_000, 0)
    truth = algzoo.longest_cycle(functions, xp=network.backend.xp).tolist()
    said = {
        "candle-mi": [longest_walk(f) for f in functions.tolist()],
        "network": [answer + 1 for answer in network.logits(functions).argmax(axis=1).tolist()],
    }
    print()
    shares = {}
    for who, lengths in said.items():
        wrong = sum(a != b for a, b in zip(lengths, truth, strict=True))
        shares[who] = 1 - wrong / len(truth)
        print(f"{who}: {shares[who]:.1%} right, {wrong} of {len(truth)} wrong")
    return shares


if __name__ == "__main__":
    run(main)
