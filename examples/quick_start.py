"""Load a model, look at its prediction, capture activations, change them.

The table has one row per layer: the length of the residual stream at the last token after it, and
what the model would predict if its attention, or its MLP, added nothing. Runs offline on the
bundled model, or on any checkpoint, recurrent ones included::

    python examples/quick_start.py [--model NAME]
"""

from __future__ import annotations

import numpy as np

import mi_ref
from mi_ref import LayerSite, Model, at, do
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

PROMPT = "The capital of France is"


def without(model: Model, site: LayerSite, layer: int) -> str:
    """Return the likeliest token and its probability if one layer's part added nothing."""
    run = model.run(PROMPT, edits=[(site[layer], do.zero())], logits="last")
    best = run.top(1)[0]
    return f"{best.token!r} {best.probability:.3f}"


def main(name: str = "atlas") -> Table:
    """Print the prediction; print and return the prediction without each layer's parts."""
    model: Model = mi_ref.from_pretrained(name)
    run = model.run(PROMPT, capture=[at.resid_post[:]])
    print(run.top(5))
    headings = [">layer", ">length of resid_post", "without attention", "without MLP"]
    table = Table(headings, f"after {PROMPT!r}")
    for layer in range(model.cfg.n_layers):
        last = model.backend.to_host(run[at.resid_post[layer]])[0, -1]
        parts = (without(model, site, layer) for site in (at.attn_out, at.mlp_out))
        table.add(layer, f"{np.linalg.norm(last):.2f}", *parts)
    table.print()
    return table


if __name__ == "__main__":
    run(main)
