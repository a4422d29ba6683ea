"""Which attention edges does a prediction depend on? Cut them one at a time and see what is lost.

First the script cuts the last token's edges to each token in each layer; then its edges to the
subject in all layers together. Edges are cut before the softmax, so the other tokens share their
weight. Runs offline on the bundled model, or on any checkpoint; a heat map goes to a file::

    python examples/attention_knockout.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis import AttentionKnockout, KnockoutGrid, attention_knockout, knockout_grid
from mi_ref.cli.script import run

PROMPT, SUBJECT = "The capital of France is", " France"


def main(name: str = "atlas", picture: str | None = None) -> tuple[KnockoutGrid, AttentionKnockout]:
    """Print and return the cost of each cut, and of all cuts from the subject together."""
    model: Model = mi_ref.from_pretrained(name)
    grid = knockout_grid(model, PROMPT)
    print(grid)
    for cut in grid.strongest(3):
        change = cut.target
        print(
            f"layer {cut.layer}, {grid.names[cut.key]}: p({change.token!r}) {change.before:.3f} ->"
            f" {change.after:.3f}"
        )
    subject = model.get_token_position(SUBJECT, PROMPT)
    together = attention_knockout(model, PROMPT, layers=slice(None), keys=subject, top=5)
    print(f"\n{together}")
    if picture:
        grid.plot(picture)
    return grid, together


if __name__ == "__main__":
    run(main)
