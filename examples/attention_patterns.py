"""Where does each head look? The last token's attention, layer by layer and head by head.

Prints the mean over heads in every layer, then every head of the layer that looks most at one
token, by default the subject. A picture of that layer goes to a file. Runs offline on the bundled
model, or on any checkpoint, prompt and token::

    python examples/attention_patterns.py [--model NAME] [--plot FILE] [--prompt T] [--token T]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis import AttentionPatterns, attention_patterns
from mi_ref.cli.script import run

PROMPT, SUBJECT = "The capital of France is", " France"


def main(
    name: str = "atlas", picture: str | None = None, prompt: str = PROMPT, token: str = SUBJECT
) -> AttentionPatterns:
    """Print where the last token looks; return all patterns."""
    model: Model = mi_ref.from_pretrained(name)
    found = attention_patterns(model, prompt)
    print(found, end="\n\n")
    peak = found.peak(model.get_token_position(token, prompt))
    print(found.table(peak.layer))
    print(f"\nMost attention to {token!r} is in layer {peak.layer}.")
    if picture:
        found.plot(picture, layer=peak.layer)
    return found


if __name__ == "__main__":
    run(main)
