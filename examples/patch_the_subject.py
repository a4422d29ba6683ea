"""Where does the model keep the capital? Patch one prompt's residual stream into another's.

At each layer and position, the stream of "The capital of Italy is" replaces that of "The capital of
France is"; the table shows the probability that ` Rome` then gets. Runs offline on the bundled
model, or on any checkpoint::

    python examples/patch_the_subject.py [--model NAME]
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mi_ref
from mi_ref import Hook, Model, at
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

CLEAN, SOURCE, ANSWER = "The capital of France is", "The capital of Italy is", " Rome"


def put(resid: Any, hook: Hook, *, other: Any, position: int) -> None:
    """Overwrite one position with the other run's values."""
    resid[:, position] = other[:, position]


def main(name: str = "atlas") -> Table:
    """Print and return the table of probabilities."""
    model: Model = mi_ref.from_pretrained(name)
    answer = model.to_single_token(ANSWER)
    source = model.run(SOURCE, capture=[at.resid_pre[:]], logits="none")
    tokens = model.to_str_tokens(CLEAN)
    table = Table(["layer", *(f">{token!r}" for token in tokens)], f"probability of {ANSWER!r}")
    for layer in range(model.cfg.n_layers):
        point = at.resid_pre[layer]
        cells = []
        for position in range(len(tokens)):
            edit = partial(put, other=source[point], position=position)
            run = model.run(CLEAN, edits=[(point, edit)], logits="last")
            best = {p.id: p.probability for p in run.top(model.cfg.d_vocab)}
            cells.append(f"{best[answer]:.3f}")
        table.add(layer, *cells)
    table.print()
    return table


if __name__ == "__main__":
    run(main)
