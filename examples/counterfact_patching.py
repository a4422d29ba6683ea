"""Where does the choice between two answers turn? Blocks of layers patched over many facts.

Pairs of countries whose names and capitals are one token each come from a table; the prompt about
one is patched with the streams of that about the other, in two layers at one position at a time.
Printed is how many of the pairs each patch turns to the other answer. Runs offline on the bundled
model and its facts, or with any checkpoint's name as argument; the first pair's logit differences
go to a picture::

    python examples/counterfact_patching.py [MODEL [PICTURE.png]]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mi_ref
from mi_ref import Model, TokenError
from mi_ref.analysis import BlockPatching, block_patching
from mi_ref.tables import Table

FACTS = Path(__file__).parents[1] / "golden" / "atlas" / "facts.json"
TEMPLATE, COUNT = "The capital of {} is", 10


def single_tokens(model: Model) -> Iterator[tuple[str, str]]:
    """Yield countries and capitals that are one token each, so that prompts have one length."""
    for country, capital, *_ in json.loads(FACTS.read_text(encoding="utf-8")):
        try:
            model.to_single_token(f" {country}"), model.to_single_token(f" {capital}")
        except TokenError:
            continue
        if country != capital:
            yield country, capital


def main(name: str = "atlas", picture: str | None = None) -> list[BlockPatching]:
    """Print how many pairs each patch turns; return one result for each pair."""
    model: Model = mi_ref.from_pretrained(name)
    facts, found = list(single_tokens(model)), list[BlockPatching]()
    for (one, answer), (two, other) in list(zip(facts[::2], facts[1::2], strict=False))[:COUNT]:
        prompt, counterfactual = TEMPLATE.format(one), TEMPLATE.format(two)
        found.append(block_patching(model, prompt, counterfactual, answer=f" {answer}",
                                    other=f" {other}", block_size=2))  # fmt: skip
    shown = TEMPLATE.format(facts[0][0])
    names = [repr(token) for token in model.to_str_tokens(shown)]
    names[model.get_token_position(f" {facts[0][0]}", shown)] = "country"
    table = Table(["layers", *(f">{name}" for name in names)], f"pairs turned, of {len(found)}")
    for row, (first, last) in enumerate(found[0].blocks):
        table.add(f"{first}-{last}", *map(sum, zip(*(r.turned()[row] for r in found), strict=True)))
    table.print()
    if picture:
        found[0].plot(picture)
    return found


if __name__ == "__main__":
    main(*sys.argv[1:3])
