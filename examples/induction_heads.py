"""Find the heads that copy: induction heads, and those that look one token back.

Random tokens occur twice, so that only the repetition helps to predict them. The script scores each
head by the weight it gives to the keys that such a head looks at. Then it silences the best
induction heads, and the model's loss on the second copy shows what they are worth. Runs offline on
the bundled model, or on any checkpoint; a heat map of the induction scores goes to a file::

    python examples/induction_heads.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

from typing import Any

import numpy as np

import mi_ref
from mi_ref import Model, at, do
from mi_ref.analysis import HeadScores, head_scores, repeated_tokens
from mi_ref.analysis.measure.distributions import log_softmax
from mi_ref.cli.script import run

PERIOD = 24


def loss(model: Model, tokens: Any, edits: Any = ()) -> float:
    """Return the mean loss on the second copy, without its first token, in nats."""
    run = model.run(tokens, edits=edits)
    found = log_softmax(run.logits, xp=model.backend.xp)
    host, ids = (np.asarray(model.backend.to_host(x)) for x in (found, tokens))
    own = np.take_along_axis(host[:, :-1], ids[:, 1:, None], axis=-1)[..., 0]
    return float(-own[:, -(PERIOD - 1) :].mean())


def main(name: str = "atlas", picture: str | None = None) -> tuple[HeadScores, float, float]:
    """Print the scores; return them with the loss before and without the two best heads."""
    model: Model = mi_ref.from_pretrained(name)
    found = head_scores(model, period=PERIOD)
    print(found, end="\n\n")
    best = found.of("induction")[:2]
    tokens = repeated_tokens(model, PERIOD)
    silenced = [(at.z[head.layer], do.zero(heads=[head.head])) for head in best]
    before, after = loss(model, tokens), loss(model, tokens, silenced)
    names = " and ".join(f"{head.layer}.{head.head}" for head in best)
    print(f"loss on the second copy: {before:.3f} nats, without {names} {after:.3f}")
    if picture:
        found.plot(picture)
    return found, before, after


if __name__ == "__main__":
    run(main)
