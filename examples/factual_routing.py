"""Find the heads that look elsewhere when the subject becomes another one.

The residual stream of a prompt about another country is put in at the subject, in the first
half of the layers; each head's attention from the last token to the subject is compared with what
it was. A head whose attention changes reads what the subject is, not where it stands. Runs offline
on the bundled model, or with any checkpoint's name as argument; a heat map goes to a file::

    python examples/factual_routing.py [MODEL [PICTURE.png]]
"""

from __future__ import annotations

import sys

import mi_ref
from mi_ref import Model
from mi_ref.analysis import FactualRouting, factual_routing

PROMPT, COUNTERFACTUAL = "The capital of France is", "The capital of Italy is"


def main(name: str = "atlas", picture: str | None = None) -> FactualRouting:
    """Print and return the change of every head's attention to the subject."""
    model: Model = mi_ref.from_pretrained(name)
    layers = slice(0, model.cfg.n_layers // 2)
    found = factual_routing(model, PROMPT, COUNTERFACTUAL, layers=layers)
    print(found)
    steady = [
        f"{layer}.{head}"
        for layer, (before, after) in enumerate(zip(found.before, found.after, strict=True))
        for head in range(model.cfg.n_heads)
        if min(before[head], after[head]) > 0.9
    ]
    print(f"Always at the subject: {', '.join(steady) or 'none'}.")
    if picture:
        found.plot(picture)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:3])
