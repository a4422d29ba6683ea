"""Take a network of ten weights apart that finds the place of the second largest of two numbers.

M(2,2) of AlgZoo (Hilton 2026, alignment.org): h = relu(w_ih x + W_hh h) for one number after the
other, then W_oh h is a logit for each place. Its surprise is the mean over Gaussian inputs of
-log2 p(right place), in bits; guessing costs log2(2) = 1. N labels hold N bits, of which the
weights explain N (1 - surprise). Runs offline::

    python examples/second_argmax.py
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from mi_ref.tables import Table

Net: TypeAlias = tuple[Any, Any, Any]  # w_ih [neuron], W_hh [neuron, neuron], W_oh [place, neuron]
M22: Net = (
    np.array([4.174038, -6.7540298], np.float32),
    np.array([[-0.38212356, 1.2886474], [1.847114, -0.75152266]], np.float32),
    np.array([[9.540969, -25.69231], [-9.538148, 25.63807]], np.float32),
)


def logits(net: Net, x: Any, keep: Any = (1, 1)) -> Any:
    """Return ``[input, place]`` for inputs ``[input, 2]``; neurons where `keep` is 0 are silent."""
    w_ih, w_hh, w_oh = net
    h = np.zeros((len(x), len(w_ih)), x.dtype)
    for number in x.T:
        h = np.maximum(number[:, None] * w_ih + h @ w_hh.T, 0) * np.asarray(keep, x.dtype)
    return h @ w_oh.T


def standardised(net: Net) -> Net:
    """Return the same function with each w_ih 1 or -1: a relu lets positive factors through."""
    w_ih, w_hh, w_oh = net
    size = abs(w_ih)
    return w_ih / size, w_hh * size / size[:, None], w_oh * size


def main(count: int = 100_000) -> dict[str, tuple[float, float]]:
    """Print the standardised weights; print and return accuracy and surprise without neurons."""
    print("standardised:", *(np.float64(w).round(2).tolist() for w in standardised(M22)))
    x = np.random.default_rng(0).normal(size=(count, 2))
    right, found = x.argmin(axis=1), {}  # Of two, the second largest is the smaller.
    table = Table(["silent", ">accuracy", ">surprise", ">bits explained", ">a weight"])
    for name, keep in {"none": (1, 1), "0": (0, 1), "1": (1, 0), "both": (0, 0)}.items():
        out = logits(M22, x, keep)
        lost = np.logaddexp(*out.T) - out[np.arange(count), right]
        found[name] = accuracy, bits = np.mean(out.argmax(axis=1) == right), lost.mean() / np.log(2)
        saved = [f"{count * (1 - bits) / weights:,.0f}" for weights in (1, 10)]
        table.add(name, f"{accuracy:.5f}", f"{bits:.5f}", *saved)
    table.print()
    return found


if __name__ == "__main__":
    main()
