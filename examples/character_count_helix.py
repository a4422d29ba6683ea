"""Does the model know how far into its line it is? The mean stream at each count of characters.

The script wraps sentences at many widths, so that the same words stand at all places of a line, and
averages the residual stream by the number of characters since the newline. If neighbouring counts
are more alike than distant ones, the stream encodes the count; models that wrap lines encode it as
a winding curve. Runs offline on the bundled model, which never had to wrap lines, or with any
checkpoint and layer; a picture of the components goes to a file::

    python examples/character_count_helix.py [--model NAME] [--plot FILE] [--layer TEXT]
"""

from __future__ import annotations

import json
from pathlib import Path

import mi_ref
from mi_ref import Model
from mi_ref.analysis import CharacterHelix, character_helix
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

FACTS = Path(__file__).parents[1] / "golden" / "atlas" / "facts.json"
SENTENCES = (
    "{0} is a country in {4}. The people of {0} speak {2} and pay with the {3}. Its capital is {1}."
)


def likeness(found: CharacterHelix, apart: int) -> float:
    """Return the mean cosine of two counts at a given distance."""
    rows = enumerate(found.cosines)
    cosines = [row[n + apart] for n, row in rows if n + apart < len(row)]
    return sum(cosines) / len(cosines)


def main(name: str = "atlas", picture: str | None = None, layer: str = "") -> CharacterHelix:
    """Print the components and how similar counts are; return the means and their shape."""
    model: Model = mi_ref.from_pretrained(name)
    facts = json.loads(FACTS.read_text(encoding="utf-8"))[:36]
    texts = [" ".join(SENTENCES.format(*f) for f in facts[n : n + 2]) for n in range(0, 36, 2)]
    found = character_helix(
        model, texts, layer=int(layer) if layer else model.cfg.n_layers // 2,
        widths=range(20, 61, 10), max_count=40,
    )  # fmt: skip
    print(found)
    table = Table([">characters apart", ">cosine of centred means"])
    for apart in (1, 2, 5, 10, 20):
        table.add(apart, f"{likeness(found, apart):+.3f}")
    table.print()
    if picture:
        found.plot(picture)
    return found


if __name__ == "__main__":
    run(main)
