"""How often patches of blocks turn a choice, by where the patched position stands in its prompt.

Source: positions are told apart as in causal tracing, Meng et al., arXiv:2202.05262.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from mi_ref.analysis.patching.blocks import BlockPatching

Place: TypeAlias = Literal["before", "subject", "after", "last"]
"""Where a position stands, seen from the subject: before its first token, one of its tokens, after
that, or the prompt's last one (unless that is the subject's)."""


@dataclass(frozen=True, slots=True)
class Turned:
    """How often the choice turns if one block is patched at one kind of position."""

    block: tuple[int, int]
    """First and last layer."""
    place: Place
    pairs: int
    """Pairs that have such a position."""
    pairs_turned: int
    """Those in which a patch of at least one of these positions turns the choice."""
    patches: int
    patches_turned: int

    @property
    def share(self) -> float:
        """The share that turns, of the pairs that have such a position."""
        return self.pairs_turned / self.pairs


def count_turned(
    pairs: Sequence[BlockPatching], subjects: Sequence[tuple[int, ...]]
) -> tuple[Turned, ...]:
    """Count the pairs and patches that turn, by block, then kind of position.

    Parameters
    ----------
    pairs : sequence of BlockPatching
        Results for every position, in the same blocks.
    subjects : sequence of tuple of int
        The positions of each pair's subject.
    """
    flags = [pair.turned() for pair in pairs]
    kinds = [_kinds(len(p.tokens), s) for p, s in zip(pairs, subjects, strict=True)]
    found = []
    for row, block in enumerate(pairs[0].blocks):
        for place in get_args(Place):
            columns = zip(flags, kinds, strict=True)
            cells = [[f for f, k in zip(flag[row], kind, strict=True) if k == place]
                     for flag, kind in columns if place in kind]  # fmt: skip
            if cells:
                pairs_turned, patches = sum(map(any, cells)), [f for each in cells for f in each]
                counts = len(cells), pairs_turned, len(patches), sum(patches)
                found.append(Turned(block, place, *counts))
    return tuple(found)


def _kinds(n_pos: int, subject: Sequence[int]) -> list[Place]:
    """Return what each position of a prompt is."""
    kinds: list[Place] = ["before" if pos < subject[0] else "after" for pos in range(n_pos)]
    kinds[-1] = "last"
    for pos in subject:
        kinds[pos] = "subject"
    return kinds
