"""Take apart a network of ten weights that finds the place of the second largest of two numbers.

M(2,2) of AlgZoo (Hilton 2026, alignment.org) computes h = relu(w_ih x + W_hh h) for one number
after the other; then W_oh h is a logit for each place. Its surprise is the mean over Gaussian
inputs of -log2 p(right place), in bits; guessing costs log2(2) = 1. N labels hold N bits, of which
the weights explain N (1 - surprise). Runs offline, also on another of AlgZoo's networks, and draws
into a file::

    python examples/second_argmax.py [--model NAME] [--task TEXT] [--plot FILE]
"""

from __future__ import annotations

from mi_ref import algzoo
from mi_ref.cli.script import run


def main(
    name: str = "second-argmax-h2-n2", task: str | None = None, picture: str | None = None
) -> algzoo.AlgZooReport:
    """Print and return the report on a network."""
    found = algzoo.report(algzoo.load(name), task, samples=100_000)
    found.print()
    print(f"\n{found.conclusion()}")
    if picture is not None:
        found.plot(picture)
    return found


if __name__ == "__main__":
    run(main)
