"""Run layers repeatedly with a thought fed back, and see whether the model rhymes better.

For each first line of a couplet the model writes the second: without change; with two layers run
twice; with a direction added before the second pass, the mean embedding of words that rhyme. Lines
that end in the first line's own word count separately. The control adds another couplet's words: if
lines then end in those, the feedback names the word and the model plans nothing. Runs offline on
the bundled model, or on any checkpoint, with any strength::

    python examples/recurrent_feedback.py [--model NAME] [--strength TEXT]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis import Feedback, embedding_direction, generate_with_feedback
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

FIRST = ("I went outside to see the rain,\n", "One day we came across the cat,\n",
         "He told a tale about the fox,\n")  # fmt: skip
RHYMES = (("rain", "train", "crane", "chain"), ("cat", "hat", "bat", "mat"),
          ("fox", "box", "ox", "socks"))  # fmt: skip
OTHERS, NONE = RHYMES[1:] + RHYMES[:1], ((),) * len(RHYMES)
WAYS = {"as it is": (1, NONE), "layers twice": (2, NONE), "with its rhymes": (2, RHYMES),
        "with another's": (2, OTHERS)}  # fmt: skip
KINDS = ("rhyme", "another couplet's", "same word", "something else")


def last_word(model: Model, line: str, depth: int, words: tuple[str, ...], push: float) -> str:
    """Return the last word of the next line."""
    half, fed = model.cfg.n_layers // 2, [f" {word}" for word in words]
    feedback = [Feedback(-1, embedding_direction(model, fed), push)] if fed else []
    loop = (half - 1, half + 1)
    ids = generate_with_feedback(
        model, line, 11, loop=loop, depth=depth, feedback=feedback, sustained=True
    )
    return ("".join(model.to_str_tokens(list(ids))).split(".")[0].split() or [""])[-1]


def main(name: str = "atlas", strength: str = "400") -> dict[str, list[int]]:
    """Print and return how many second lines end in what, by `KINDS`."""
    model: Model = mi_ref.from_pretrained(name)
    table, found = Table(["second line", *(f">{kind}" for kind in KINDS)]), {}
    for way, (depth, given) in WAYS.items():
        found[way] = [0, 0, 0, 0]
        for line, own, other, fed in zip(FIRST, RHYMES, OTHERS, given, strict=True):
            word = last_word(model, line, depth, fed[1:], float(strength))
            kind = 2 if word == own[0] else 0 if word in own else 1 if word in other else 3
            found[way][kind] += 1
        table.add(way, *found[way])
    table.print()
    return found


if __name__ == "__main__":
    run(main)
