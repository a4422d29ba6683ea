"""Count the steps of the longest cycle of a function of n numbers, as a transformer does.

AlgZoo's transformers (Hilton 2026, alignment.org) read f(0), …, f(n-1); class k is length k + 1.
Their weights are not in this package: name a safetensors file of them to see how many they get
right. The other figure, for n = 4 without a file, is candle-mi's, whose cycles include tails::

    python examples/longest_cycle.py [FILE]
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
from safetensors.numpy import load_file


def longest_cycle(f: Sequence[int], *, tail: bool = False) -> int:
    """Return the steps of the longest cycle; with `tail` of the longest walk over new ground."""
    lengths, seen = [0], set[int]()
    for start in range(len(f)):
        walk, at = list[int](), start
        while at not in walk and at not in seen:
            walk, at = [*walk, at], f[at]
        seen.update(walk)
        cycle = walk[walk.index(at) :] if at in walk else []
        lengths.append(len(walk if tail else cycle))
    return max(lengths)


def logits(w: Mapping[str, Any], f: Any) -> Any:
    """Return ``[function, class]``: in a layer one head that sees all of f, and no norm or MLP."""
    x = w["embed.weight"][f] + w["pos_embed.weight"]
    for layer in range(sum(key.endswith("in_proj_weight") for key in w)):
        q, k, v = np.split(x @ w[f"attns.{layer}.in_proj_weight"].T, 3, axis=-1)
        scores = q @ k.swapaxes(1, 2) / np.sqrt(x.shape[-1])
        odds = np.exp(scores - scores.max(-1, keepdims=True))
        x = x + (odds / odds.sum(-1, keepdims=True)) @ v @ w[f"attns.{layer}.out_proj.weight"].T
    return x[:, -1] @ w["unembed.weight"].T


def main(file: str | None = None) -> None:
    """Print how many labels are right: candle-mi's, and the network's if one is given."""
    weights = load_file(file) if file else None
    n = len(weights["pos_embed.weight"]) if weights else 4
    drawn = np.random.default_rng(0).integers(n, size=(10_000, n))  # Where all are too many.
    functions = np.array([*product(range(n), repeat=n)]) if n < 7 else drawn
    truth = np.array([longest_cycle(f) for f in functions.tolist()])
    walks = [longest_cycle(f, tail=True) for f in functions.tolist()]
    network = {"network": logits(weights, functions).argmax(axis=1) + 1} if weights else {}
    for name, said in {"candle-mi": walks, **network}.items():
        wrong = truth != said
        print(f"{name}: {1 - wrong.mean():.1%} right, {wrong.sum()} of {len(truth)} wrong")


if __name__ == "__main__":
    main(*sys.argv[1:2])
