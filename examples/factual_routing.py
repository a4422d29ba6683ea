"""Find the heads that look elsewhere when the subject changes.

Facts about countries come in pairs. The script puts the residual stream of a prompt about another
country in at the subject, in the first half of the layers, and compares each head's attention from
the last token to the subject with its attention before, pair by pair. A head whose attention
changes repeatedly reads what the subject is, not where it stands. Pairs of unequal length are left
out. Runs offline on the bundled model, or on any checkpoint; a heat map goes to a file::

    python examples/factual_routing.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import json
from pathlib import Path

import mi_ref
from mi_ref.analysis.facts.routing_pairs import FactualRoutingPairs, factual_routing_pairs
from mi_ref.cli.script import run

FACTS = Path(__file__).parents[1] / "golden" / "atlas" / "facts.json"
TEMPLATE = "The capital of {} is"


def main(name: str = "atlas", picture: str | None = None) -> FactualRoutingPairs:
    """Print and return the changes of every head's attention to the subject."""
    model = mi_ref.from_pretrained(name)
    prompts = [TEMPLATE.format(country) for country, *_ in json.loads(FACTS.read_text("utf-8"))]
    pairs = list(zip(prompts[::2], prompts[1::2], strict=False))
    layers = slice(0, model.cfg.n_layers // 2)
    found = factual_routing_pairs(model, pairs, layers=layers, skip=True)
    print(found)
    steady = [
        f"{each.layer}.{each.head}"
        for each in sorted(found.heads, key=lambda head: (head.layer, head.head))
        if all(min(pair.before[each.layer][each.head], pair.after[each.layer][each.head]) > 0.9
               for pair in found.pairs)
    ]  # fmt: skip
    print(f"Always at the subject: {', '.join(steady) or 'none'}.")
    if picture:
        found.plot(picture)
    return found


if __name__ == "__main__":
    run(main)
