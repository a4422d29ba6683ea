"""The corpus as arrays of token ids, ready for any trainer."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
from tokenizers import Tokenizer

from .corpus import documents, repeated_tokens
from .tokenizer import BOS, EOS, ordinary_ids, special_id

IGNORED = -100  # the label that torch's cross-entropy leaves out
REPEATED_SHARE = 0.15
REPEATED_LENGTHS = (16, 100)
POOL = 32  # how many batches are sorted by length together

Example = tuple[list[int], list[int]]


def examples(tokenizer: Tokenizer, seed: int) -> Iterator[Example]:
    """Endless pairs of token ids and labels, a share of them repeated random tokens.

    Random tokens before the repetition cannot be learned, so they get no labels.
    """
    rng = random.Random(seed)
    texts = documents(seed)
    vocabulary = ordinary_ids(tokenizer)
    bos, eos = special_id(tokenizer, BOS), special_id(tokenizer, EOS)
    while True:
        if rng.random() < REPEATED_SHARE:
            ids, start = repeated_tokens(rng, vocabulary, rng.randint(*REPEATED_LENGTHS))
            yield [bos, *ids], [IGNORED] * (start + 1) + ids[start:]
        else:
            ids = [*tokenizer.encode(next(texts)).ids, eos]
            yield ids, ids


def _padded(rows: list[list[int]], filler: int) -> np.ndarray:
    width = max(map(len, rows))
    return np.array([row + [filler] * (width - len(row)) for row in rows], dtype=np.int64)


def batches(
    tokenizer: Tokenizer, seed: int, batch_size: int, stream: Iterator[Example] | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches of documents of similar length, padded on the right.

    Parameters
    ----------
    tokenizer : Tokenizer
        The model's.
    seed : int
        Of the data and of the order of the batches.
    batch_size : int
        Documents in a batch.
    stream : iterator, optional
        Where the documents come from; `examples` if not given.

    Yields
    ------
    ids, labels
        Arrays of shape ``(batch_size, longest)``.  Labels stand at the place of their own token;
        shifting them is up to the trainer.
    """
    rng = random.Random(seed)
    stream = examples(tokenizer, seed) if stream is None else stream
    eos = special_id(tokenizer, EOS)
    while True:
        pool = [next(stream) for _ in range(POOL * batch_size)]
        pool.sort(key=lambda example: len(example[0]))
        starts = list(range(0, len(pool), batch_size))
        rng.shuffle(starts)
        for start in starts:
            ids, labels = zip(*pool[start : start + batch_size], strict=True)
            yield _padded(list(ids), eos), _padded(list(labels), IGNORED)
