"""Prompts in which nothing but a repetition can be predicted: random tokens, and the same again."""

from __future__ import annotations

import random

from mi_ref._typing import Array, Int
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.errors import ShapeError, TokenError
from mi_ref.model import Model


def repeated_tokens(
    model: Model, period: int = 24, n_prompts: int = 8, seed: int = 0
) -> Int[Array, "prompt pos"]:
    """Return prompts of BOS, random tokens, and the same random tokens again.

    Within a period no token occurs twice, and neither BOS nor EOS occurs. A model without BOS, or
    without a tokenizer, gets none.

    Parameters
    ----------
    model : Model
        Whose vocabulary to draw from.
    period : int
        Random tokens of a prompt, before they come again.
    n_prompts : int
        Rows.
    seed : int
        Of Python's generator.

    Raises
    ------
    ShapeError
        If there are not that many tokens to draw, or none is asked for.
    """
    bos, special, size = _vocabulary(model)
    plain = [token for token in range(size) if token not in special]
    period, n_prompts = whole(period, "period"), whole(n_prompts, "n_prompts")
    if not (1 <= period <= len(plain) and n_prompts >= 1):
        raise ShapeError(
            f"period={period}, n_prompts={n_prompts}: both are at least 1, and a period at most"
            f" the {len(plain)} tokens that {model.origin.name} has to draw from."
        )
    generator = random.Random(whole(seed, "seed"))
    start = [] if bos is None else [bos]
    drawn = (generator.sample(plain, period) for _ in range(n_prompts))
    return model.to_tokens([[*start, *once, *once] for once in drawn])


def _vocabulary(model: Model) -> tuple[int | None, set[int | None], int]:
    """Return the BOS, the special tokens and the number of tokens."""
    try:
        tokenizer = model.tokenizer
        bos, size = tokenizer.bos_id, min(tokenizer.vocab_size, model.cfg.d_vocab)
        return bos, {bos, tokenizer.eos_id}, size
    except TokenError:
        # Models run on token ids alone, and so do heads.
        return None, set(), model.cfg.d_vocab
