"""Block patching over many pairs of prompts: where the choice between two answers turns.

Each pair is looked at by itself, as in `block_patching`; then the pairs are counted that turn, by
block and by where the position stands, seen from the subject.

Source: the protocol of arXiv:2511.08579.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Unpack

from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import PromptPair
from mi_ref.analysis.facts.block_turns import Turned, count_turned
from mi_ref.analysis.facts.pairs import (
    FactPair,
    LeftOut,
    PairLike,
    counted,
    fitting,
    read_fact_pair,
)
from mi_ref.analysis.measure.metrics import LogitDifference
from mi_ref.analysis.patching.blocks import BlockPatching, block_patching, read_choice
from mi_ref.analysis.sweeps.sweep import SweepOptions
from mi_ref.errors import ShapeError, TokenError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.progress import tracked
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Styled, Table


@dataclass(frozen=True, slots=True, repr=False)
class BlockPatchingPairs(Result):
    """Where patches turn the choice between two answers, over many pairs.

    Attributes
    ----------
    turned : tuple of Turned
        By block, then kind of position; kinds that no prompt has are left out.
    pairs : tuple of BlockPatching
        What each pair shows by itself.
    subjects : tuple of tuple of int
        The positions of each pair's subject.
    numbers : tuple of int
        Places of these pairs among those given.
    left_out : tuple of LeftOut
        Pairs that did not fit.
    """

    turned: tuple[Turned, ...]
    pairs: tuple[BlockPatching, ...]
    subjects: tuple[tuple[int, ...], ...]
    numbers: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return the share of pairs that turn; bold where it is most of them."""
        places = self._places()
        table = Table(
            [">layers", *places],
            f"share that turns, at.resid_post patched: {counted(len(self.pairs), self.left_out)}",
        )
        for name, row in zip(self._rows(), self._grid(), strict=True):
            cells = (
                Styled((f"{each.share:.3f}", "bold" if each.share > 0.5 else ""),
                     (f"{each.pairs_turned} of {each.pairs}", "dim"))
                for each in row
            )  # fmt: skip
            table.add(name, *cells)
        return table

    def summary(self) -> str:
        """Return where most pairs turn as a sentence."""
        best = max(self.turned, key=lambda each: each.share)
        return (
            f"Most turn with layers {best.block[0]} to {best.block[1]} patched, position"
            f" {best.place!r}: {best.pairs_turned} of {best.pairs} pairs."
        )

    def record(self) -> dict[str, Any]:
        """Return the shares, and every pair's numbers."""
        tokens = [ids for pair in self.pairs for ids in (pair.tokens, pair.counterfactual_tokens)]
        columns = zip(self.numbers, self.pairs, self.subjects, strict=True)
        pairs = [
            {
                "number": number,
                "prompt": 2 * place,
                "counterfactual": 2 * place + 1,
                "subject": list(subject),
                "choice": pair.choice.record(),
                "base_logit_difference": pair.base,
                "counterfactual_logit_difference": pair.counterfactual,
                "values": [list(line) for line in pair.values],
                "turned": [list(line) for line in pair.turned()],
                "likeliest": [list(line) for line in pair.likeliest],
            }
            for place, (number, pair, subject) in enumerate(columns)
        ]
        return record_of(
            self,
            "block_patching_pairs",
            tokens,
            blocks=[list(block) for block in self.pairs[0].blocks],
            turned=[{**asdict(each), "share": each.share} for each in self.turned],
            pairs=pairs,
            left_out=[asdict(each) for each in self.left_out],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw a heat map of the share of pairs that turn."""
        from mi_ref.output.plots import heat_map

        heat_map(
            path,
            [[each.share for each in row] for row in self._grid()],
            rows=self._rows(),
            columns=self._places(),
            title=f"{self.origin.name}: {len(self.pairs)} pairs, blocks patched",
            row_label="layers",
            column_label="position, seen from the subject",
            unit="share of pairs that turn",
        )

    def _places(self) -> list[str]:
        return list(dict.fromkeys(each.place for each in self.turned))

    def _rows(self) -> list[str]:
        blocks = dict.fromkeys(each.block for each in self.turned)
        return [str(a) if a == b else f"{a}-{b}" for a, b in blocks]

    def _grid(self) -> list[Sequence[Turned]]:
        width = len(self._places())
        return [self.turned[n : n + width] for n in range(0, len(self.turned), width)]


def block_patching_pairs(
    model: Model,
    pairs: Iterable[PairLike],
    *,
    block_size: int = 4,
    skip: bool = False,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> BlockPatchingPairs:
    """Patch blocks of layers at every position of many prompts, one position at a time.

    Parameters
    ----------
    model : Model
        What to look into.
    pairs : iterable of FactPair or (prompt, counterfactual)
        Prompts of one pair have equal length, and the model chooses between the two answers one
        way after the one and the other way after the other: else there is nothing to turn.
    block_size : int
        Layers in a block, as for `block_patching`.
    skip : bool
        Leave out pairs that do not fit, and record them, where they are an error otherwise.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweep`: ``rows``, ``executor``, and ``resume``, which is a
        folder here, with a file for each pair.

    Raises
    ------
    PairsError
        If pairs do not fit: with every fault, by number.

    Returns
    -------
    BlockPatchingPairs
    """
    if whole(block_size, "block_size") < 1:
        raise ShapeError(f"block_size={block_size}: a block has at least one layer.")
    kept, left_out = fitting(pairs, lambda pair: _read(model, pair, prepend_bos), skip=skip)
    found = tuple(
        block_patching(
            model,
            list(pair.first),
            list(pair.second),
            answer=choice.token.id,
            other=choice.other.id,
            block_size=block_size,
            **_of_one(options, number),
        )
        for number, (pair, _, choice) in tracked(kept, "pairs")
    )
    subjects = tuple(subject for _, (_, subject, _) in kept)
    return BlockPatchingPairs(
        turned=count_turned(found, subjects),
        pairs=found,
        subjects=subjects,
        numbers=tuple(number for number, _ in kept),
        left_out=left_out,
        origin=model.origin,
    )


def _of_one(options: SweepOptions, number: int) -> SweepOptions:
    """Return how one pair is swept: with a file of its own, if any are kept."""
    folder = options.get("resume")
    if folder is None:
        return options
    Path(folder).mkdir(parents=True, exist_ok=True)
    return {**options, "resume": Path(folder) / f"pair-{number}.jsonl"}


def _read(
    model: Model, pair: FactPair, prepend_bos: bool | None
) -> tuple[PromptPair, tuple[int, ...], LogitDifference]:
    """Return a pair's tokens, its subject, and the choice that the model makes both ways."""
    read, subject = read_fact_pair(model, pair, prepend_bos)
    choice = read_choice(model, read, pair.answer, pair.other)
    logits = (model.run(list(ids), logits="last").logits_at() for ids in (read.first, read.second))
    base, counterfactual = (float(choice(each, xp=model.backend.xp)) for each in logits)
    if (base > 0) == (counterfactual > 0):
        raise TokenError(
            f"{choice.label} is {base:+.2f} after the prompt and {counterfactual:+.2f} after the"
            " counterfactual: the choice is the same, so that there is nothing to turn."
        )
    return read, subject, choice
