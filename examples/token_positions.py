"""Which tokens are the words you mean? Find the positions to patch and to read.

Prints where every token stands in the text, in characters and in UTF-8 bytes, which differ as soon
as a letter has an accent, and which tokens hold one part of it. Runs offline on the bundled model,
or on any checkpoint, text and part of it::

    python examples/token_positions.py [--model NAME] [--text TEXT] [--part TEXT]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis.geometry.token_positions import (
    TokenPositions,
    convert_positions,
    token_positions,
)
from mi_ref.cli.script import run

TEXT, PART = "The Eiffel Tower is located in Paris, France.", " Paris"


def main(name: str = "atlas", text: str = TEXT, part: str = PART) -> TokenPositions:
    """Print and return the tokens, with labels on those that hold the part."""
    model: Model = mi_ref.from_pretrained(name)
    found = token_positions(model, text, {"part": part})
    found.print()
    held = found.positions("part")
    tokens = ", ".join(f"{position} {found.encoding.tokens[position]!r}" for position in held)
    print(f"{part!r} is in: {tokens}")
    start = text.index(part)
    begins = convert_positions(found.encoding, [start])[0].exact
    print(f"Character {start}, its first, {'begins' if begins else 'stands inside'} a token.")
    return found


if __name__ == "__main__":
    run(main)
