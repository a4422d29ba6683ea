"""Where in its state does a recurrent model keep the capital? Patch one prompt's into another's.

After "The capital of France" the state is everything the model knows of the text. The script takes
one head's matrix at a time from "The capital of Italy" before both read " is", and the table shows
the probability that ` Rome` then gets; then what is left if " France" writes nothing into the state
or is removed. Runs offline on the bundled model, or on any RWKV checkpoint::

    python examples/rwkv_state.py [--model NAME]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model, Run, state_knockout, token_removal
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

BEFORE, SOURCE, AFTER = "The capital of France", "The capital of Italy", " is"
SUBJECT, ANSWER, OTHER = " France", " Paris", " Rome"


def probability(model: Model, run: Run, text: str) -> float:
    """Return the probability of one token after the last position."""
    chances = {p.id: p.probability for p in run.top(model.cfg.d_vocab)}
    return chances[model.to_single_token(text)]


def main(name: str = "atlas-rwkv7") -> Table:
    """Print and return the table of probabilities."""
    model: Model = mi_ref.from_pretrained(name)
    france, italy = (model.run(text).state for text in (BEFORE, SOURCE))
    if france is None or italy is None:
        raise SystemExit(f"{name} attends and has no state: name an RWKV model.")
    heads, title = range(model.cfg.n_heads), f"{OTHER!r} with one head's state from {SOURCE!r}"
    table = Table(["layer", *(f">head {head}" for head in heads)], f"probability of {title}")
    for layer in range(model.cfg.n_layers):
        cells = []
        for head in heads:
            patched = france.patched(italy, layers=[layer], heads=[head], parts=["wkv"])
            cells.append(f"{probability(model, model.run(AFTER, state=patched), OTHER):.3f}")
        table.add(layer, *cells)
    table.print()

    prompt = BEFORE + AFTER
    subject = [model.get_token_position(SUBJECT, prompt)]
    for what, edits in (
        ("as it is", ()),
        (f"{SUBJECT!r} writes nothing", state_knockout(subject)),
        (f"{SUBJECT!r} removed", token_removal(model, subject)),
    ):
        run = model.run(prompt, edits=edits)
        share, best = probability(model, run, ANSWER), run.top(1)[0].token
        print(f"{what:24} {ANSWER!r} {share:.3f}, likeliest {best!r}")
    return table


if __name__ == "__main__":
    run(main)
