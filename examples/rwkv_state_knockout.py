"""Find the token whose write into a layer's state a prediction depends on.

A recurrent model has no attention edges to cut. Instead the script keeps each token in turn from
writing into one layer's state, and into all of them. Later tokens still meet it through token
shift; `mi_ref.token_removal` removes a token altogether. Runs offline on the bundled RWKV-7, or on
any RWKV checkpoint; a heat map goes to a file::

    python examples/rwkv_state_knockout.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis import StateGrid, state_knockout_sweep
from mi_ref.cli.script import run

PROMPT = "The capital of France is"


def main(name: str = "atlas-rwkv7", picture: str | None = None) -> StateGrid:
    """Print and return the prediction after each knockout."""
    model: Model = mi_ref.from_pretrained(name)
    if not model.cfg.recurrent:
        raise SystemExit(f"{name} attends and has no state: name an RWKV model.")
    found = state_knockout_sweep(model, PROMPT)
    print(found)
    row, column = found.strongest()
    lost = found.cells[row][column]
    print(
        f"The greatest loss is with {found.columns[column]} in layer {found.layers[row]}:"
        f" p({found.target_token!r}) {found.natural:.3f} -> {lost.probability:.3f}"
    )
    if picture:
        found.plot(picture)
    return found


if __name__ == "__main__":
    run(main)
