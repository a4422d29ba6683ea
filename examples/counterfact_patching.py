"""Where does the choice between two answers turn? Blocks of layers patched over many facts.

Countries and their capitals come in pairs from a table. The script patches the prompt about one
country with the streams of the prompt about the other, two layers and one position at a time, and
prints the share of pairs that each patch turns to the other answer, by position relative to the
subject. It leaves out pairs of unequal length and pairs whose answers are several tokens. Runs
offline on the bundled model and its facts, or on any checkpoint; the shares go to a picture::

    python examples/counterfact_patching.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import json
from pathlib import Path

import mi_ref
from mi_ref.analysis.facts.block_pairs import BlockPatchingPairs, block_patching_pairs
from mi_ref.analysis.facts.pairs import FactPair
from mi_ref.cli.script import run

FACTS = Path(__file__).parents[1] / "golden" / "atlas" / "facts.json"
TEMPLATE, COUNT = "The capital of {} is", 30


def fact_pairs() -> list[FactPair]:
    """Return pairs of neighbouring countries in the table."""
    table = json.loads(FACTS.read_text("utf-8"))
    facts = [(country, TEMPLATE.format(country), f" {capital}") for country, capital, *_ in table]
    return [
        FactPair(prompt, counterfactual, subject, answer, other)
        for (subject, prompt, answer), (_, counterfactual, other) in zip(
            facts[: 2 * COUNT : 2], facts[1 : 2 * COUNT : 2], strict=True
        )
    ]


def main(name: str = "atlas", picture: str | None = None) -> BlockPatchingPairs:
    """Print and return the share of pairs that each patch turns."""
    model = mi_ref.from_pretrained(name)
    found = block_patching_pairs(model, fact_pairs(), block_size=2, skip=True)
    print(found)
    if picture:
        found.plot(picture)
    return found


if __name__ == "__main__":
    run(main)
