"""Text with slips: words of another document inserted, or replacing the original ones.

Without slips the bundled RWKV-7 mostly completes facts in phrasings that it has seen word for word.
Where any word may be wrong, it has to use the others. The README has the comparison.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from .batches import IGNORED, Example

SLIPPING_SHARE = 0.5
INSERTED = 0.1
REPLACED = 0.1


def with_slips(rng: random.Random, ids: Sequence[int], others: Sequence[int]) -> Example:
    """Put tokens of ``others`` before or in place of those after the first two.

    Returns
    -------
    ids, labels
        The new tokens, and at each place what is to be predicted there: the token that belongs
        there, and nothing at an inserted one.
    """
    # The second place stays, because its label separates text from repeated tokens.
    slipped, labels = list(ids[:2]), list(ids[:2])
    for token in ids[2:]:
        if rng.random() < INSERTED:
            slipped.append(rng.choice(others))
            labels.append(IGNORED)
        slipped.append(rng.choice(others) if rng.random() < REPLACED else token)
        labels.append(token)
    return slipped, labels


def slipping(stream: Iterator[Example], seed: int) -> Iterator[Example]:
    """Give a share of the documents slips; repeated random tokens go through as they are."""
    rng = random.Random(seed)
    others: Sequence[int] = ()
    for ids, labels in stream:
        is_text = labels[1] != IGNORED
        if is_text and others and rng.random() < SLIPPING_SHARE:
            yield with_slips(rng, ids, others)
        else:
            yield ids, labels
        if is_text:
            others = ids[1:-1]
