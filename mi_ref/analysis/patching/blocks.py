"""Block patching: a counterfactual's residual stream at one position, through a block of layers.

Every layer of the block is patched, at that position alone: other tokens look at it in each of
these layers and find the counterfactual there, while all else is the prompt's own. Asked is whether
the choice between two answers turns.

Source: the protocol of arXiv:2511.08579, on prompts as in CounterFact (arXiv:2202.05262).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Unpack

from mi_ref import do
from mi_ref._typing import Array
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import PromptPair, places, position_names, read_pair
from mi_ref.analysis.measure.metrics import Likeliest, LogitDifference, logit_difference
from mi_ref.analysis.patching.grid import read_patching
from mi_ref.analysis.sweeps.sweep import SweepCell, SweepOptions, sweep
from mi_ref.edits.intervention import Intervention, Places
from mi_ref.errors import ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.points import LayerPoint
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Styled, Table
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True, repr=False)
class BlockPatching(Result):
    """What each block of layers at each position does to the choice between two answers.

    Attributes
    ----------
    values : tuple of tuple of float
        Logit of the prompt's answer less that of the counterfactual's, by block, then position.
    likeliest : tuple of tuple of int
        The id that the patched run predicts.
    base, counterfactual : float
        The logit difference of the two prompts as they are.
    choice : LogitDifference
        Between which answers.
    blocks : tuple of tuple of int
        First and last layer of each.
    positions : tuple of int
        Which were patched.
    tokens, counterfactual_tokens : tuple of int
        Tokens of the prompt that was patched, and of the one patched from.
    """

    values: tuple[tuple[float, ...], ...]
    likeliest: tuple[tuple[int, ...], ...]
    base: float
    counterfactual: float
    choice: LogitDifference
    blocks: tuple[tuple[int, int], ...]
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    counterfactual_tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def turned(self) -> tuple[tuple[bool, ...], ...]:
        """Return where the other answer is chosen than without a patch, by block and position."""
        return tuple(tuple((v > 0) != (self.base > 0) for v in line) for line in self.values)

    def table(self) -> Table:
        """Return the logit difference and the prediction; bold where the choice has turned."""
        names = position_names(self.origin, self.tokens)
        table = Table(
            [">layers", *(names[pos] for pos in self.positions)],
            f"{self.choice.label}, at.resid_post patched",
        )
        for name, *columns in zip(
            self._rows(), self.values, self.likeliest, self.turned(), strict=True
        ):
            cells = (
                Styled(
                    (f"{v:+.2f}", "bold" if t else ""), (repr(self.origin.token_string(n)), "dim")
                )
                for v, n, t in zip(*columns, strict=True)
            )
            table.add(name, *cells)
        return table

    def summary(self) -> str:
        """Return how many patches turn the choice, as a sentence."""
        flags = [flag for line in self.turned() for flag in line]
        return (
            f"{self.choice.label} is {self.base:+.2f}, of the counterfactual"
            f" {self.counterfactual:+.2f}; {sum(flags)} of {len(flags)} patches turn the choice."
        )

    def record(self) -> dict[str, Any]:
        """Return everything."""
        return record_of(
            self,
            "block_patching",
            [self.tokens, self.counterfactual_tokens],
            prompts=["base", "counterfactual"],
            choice=self.choice.record(),
            base=self.base,
            counterfactual=self.counterfactual,
            blocks=[list(block) for block in self.blocks],
            positions=list(self.positions),
            values=[list(line) for line in self.values],
            turned=[list(line) for line in self.turned()],
            likeliest=[list(line) for line in self.likeliest],
            likeliest_tokens=[
                [self.origin.token_string(n) for n in line] for line in self.likeliest
            ],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw a heat map of the logit difference."""
        from mi_ref.output.plots import heat_map

        names = position_names(self.origin, self.tokens)
        heat_map(
            path,
            self.values,
            rows=self._rows(),
            columns=[names[pos] for pos in self.positions],
            title=f"{self.origin.name}: blocks of layers patched",
            row_label="layers",
            column_label="position",
            unit=self.choice.label,
            centred=True,
        )

    def _rows(self) -> list[str]:
        return [str(a) if a == b else f"{a}-{b}" for a, b in self.blocks]


def block_patching(
    model: Model,
    prompt: Prompt,
    counterfactual: Prompt,
    *,
    answer: str | int | None = None,
    other: str | int | None = None,
    block_size: int = 4,
    positions: Places = None,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> BlockPatching:
    """Patch a block of layers at one position at a time.

    Parameters
    ----------
    model : Model
        What to look into.
    prompt, counterfactual : str, sequence of int, or Array
        Two prompts of equal length; the second's residual streams go into the first's run.
    answer, other : str, int or None
        The two answers, each an id or exactly one token's text; None for what the prompt, and what
        the counterfactual, is likeliest to go on with.
    block_size : int
        Layers in a block; blocks lie side by side from layer 0 on, the last one may be shorter.
    positions : Places
        Which; None for all.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweeps.sweep.sweep`: ``rows``, ``executor``, ``resume``.

    Returns
    -------
    BlockPatching
        Blocks by positions.
    """
    if whole(block_size, "block_size") < 1:
        raise ShapeError(f"block_size={block_size}: a block has at least one layer.")
    names = ("prompt", "counterfactual")
    pair = read_pair(model, prompt, counterfactual, names=names, prepend_bos=prepend_bos)
    choice = read_choice(model, pair, answer, other)
    patching = read_patching(model, pair, "noising", choice)
    width = places(positions, len(pair.first), "positions")
    held = counterfactual_streams(model, pair, range(model.cfg.n_layers), width)
    starts = range(0, model.cfg.n_layers, block_size)
    blocks = [range(n, min(n + block_size, model.cfg.n_layers)) for n in starts]
    cells = [
        SweepCell(
            patch_block(held, block, width, slice(column, column + 1)),
            label=f"layers {block[0]}-{block[-1]} position {pos}",
        )
        for block in blocks
        for column, pos in enumerate(width)
    ]
    found = sweep(model, list(pair.first), cells, [choice, Likeliest()], **options).values
    lines = [found[n : n + len(width)] for n in range(0, len(cells), len(width))]
    xp = model.backend.xp
    return BlockPatching(
        values=tuple(tuple(value for value, _ in line) for line in lines),
        likeliest=tuple(tuple(int(number) for _, number in line) for line in lines),
        base=float(choice(patching.base_logits, xp=xp)),
        counterfactual=float(choice(patching.source_logits, xp=xp)),
        choice=choice,
        blocks=tuple((block[0], block[-1]) for block in blocks),
        positions=width,
        tokens=pair.first,
        counterfactual_tokens=pair.second,
        origin=model.origin,
    )


def read_choice(
    model: Model, pair: PromptPair, answer: str | int | None, other: str | int | None
) -> LogitDifference:
    """Return the choice between two answers; see `block_patching` for those that are None."""
    given = zip((answer, other), (pair.first, pair.second), strict=True)
    first, second = (
        model.run(list(ids), logits="last").top(1)[0].id if named is None else named
        for named, ids in given
    )
    return logit_difference(model, first, second)


def counterfactual_streams(
    model: Model, pair: PromptPair, layers: Sequence[int], positions: Sequence[int]
) -> dict[int, Array]:
    """Return the residual streams leaving `layers` in the pair's second prompt."""
    wanted = [capture(at.resid_post[layer], pos=list(positions)) for layer in layers]
    run = model.run(list(pair.second), capture=wanted, logits="none")
    return {layer: run[at.resid_post[layer]] for layer in layers}


def patch_block(
    held: dict[int, Array], block: Sequence[int], positions: Sequence[int], columns: slice
) -> tuple[tuple[LayerPoint, Intervention], ...]:
    """Return the edits that patch every layer of a block, at some of the positions held."""
    return tuple(
        (
            at.resid_post[layer],
            do.replace(held[layer][:, columns, :], positions=positions[columns]),
        )
        for layer in block
    )
