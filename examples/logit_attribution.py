"""Which components make the answer? Split a logit difference into what each component wrote.

The final norm is frozen at its value in this run, so the parts sum to the whole. The script splits
by layers, then by heads. An effect that goes through later components counts as theirs: compare
with `activation_patching.py`. Runs offline on the bundled model, or on any checkpoint; a picture of
the heads goes to a file::

    python examples/logit_attribution.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis import LogitAttribution, logit_attribution
from mi_ref.cli.script import run

PROMPT, ANSWER, OTHER = "The capital of France is", " Paris", " Rome"


def main(name: str = "atlas", picture: str | None = None) -> LogitAttribution:
    """Print both splits; return the finer one, by heads if the model has any that attend."""
    model: Model = mi_ref.from_pretrained(name)
    found = logit_attribution(model, PROMPT, ANSWER, OTHER)
    print(found)
    if not model.cfg.recurrent:
        found = logit_attribution(model, PROMPT, ANSWER, OTHER, by="head")
        print(f"\n{found.table(12)}")
    if picture:
        found.plot(picture)
    return found


if __name__ == "__main__":
    run(main)
