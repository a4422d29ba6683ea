"""Factual routing over many pairs of prompts: which heads look elsewhere time and again.

Each pair is looked at by itself, as in `factual_routing`; then each head's changes are averaged,
and the pairs counted in which it is among those that change most. A head that did not change, as
none can before the patch ends, is never among them.

Source: the count is that of candle-mi's example `factual_routing`. There the patch replaces whole
activations, so that of several layers only the last one counts; here it is the subject's positions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean, stdev
from typing import Any, Literal

from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.facts.pairs import LeftOut, PairLike, counted, fitting, read_fact_pair
from mi_ref.analysis.facts.routing import FactualRouting, factual_routing, patched_layers
from mi_ref.edits.intervention import Places
from mi_ref.errors import ShapeError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.progress import tracked
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table


@dataclass(frozen=True, slots=True)
class HeadRouting:
    """One head's change of attention from the last token to the subject, over pairs."""

    layer: int
    head: int
    mean: float
    """In probability, signed."""
    error: float | None
    """Standard error of the mean; None for a single pair."""
    size: float
    """Mean of the change without its sign: large beside a mean near zero where the head looks at
    some subjects and away from others."""
    count: int
    """Pairs in which the change is one of the largest of either sign."""


@dataclass(frozen=True, slots=True, repr=False)
class FactualRoutingPairs(Result):
    """Changes of attention to the subject, over many pairs.

    Attributes
    ----------
    heads : tuple of HeadRouting
        Every head, the most frequent among the `top` first; of equals, the largest size.
    pairs : tuple of FactualRouting
        What each pair shows by itself.
    numbers : tuple of int
        Places of these pairs among those given.
    left_out : tuple of LeftOut
        Pairs that did not fit.
    top : int
        How many heads of a pair count as its largest.
    patched : tuple of int
        Layers of the patch.
    """

    heads: tuple[HeadRouting, ...]
    pairs: tuple[FactualRouting, ...]
    numbers: tuple[int, ...]
    left_out: tuple[LeftOut, ...]
    top: int
    patched: tuple[int, ...]
    origin: Origin = field(compare=False)

    def table(self, rows: int = 10) -> Table:
        """Return the first of the heads."""
        table = Table(
            ["head", f">in top {self.top}", ">mean size", ">mean change", ">standard error"],
            "attention from the last token to the subject:"
            f" {counted(len(self.pairs), self.left_out)}",
        )
        for each in self.heads[:rows]:
            error = "" if each.error is None else f"{each.error:.4f}"
            numbers = f"{each.size:.4f}", f"{each.mean:+.4f}", error
            table.add(f"{each.layer}.{each.head}", each.count, *numbers)
        return table

    def summary(self) -> str:
        """Return the first head as a sentence."""
        best = self.heads[0]
        return (
            f"Head {best.layer}.{best.head} is among the {self.top} that change most in"
            f" {best.count} of {len(self.pairs)} pairs: by {best.size:.4f} on average."
        )

    def record(self) -> dict[str, Any]:
        """Return every head's and every pair's numbers."""
        tokens = [ids for pair in self.pairs for ids in (pair.tokens, pair.counterfactual_tokens)]
        pairs = [
            {
                "number": number,
                "prompt": 2 * place,
                "counterfactual": 2 * place + 1,
                "subject": list(pair.subject),
                "before": [list(line) for line in pair.before],
                "after": [list(line) for line in pair.after],
            }
            for place, (number, pair) in enumerate(zip(self.numbers, self.pairs, strict=True))
        ]
        return record_of(
            self,
            "factual_routing_pairs",
            tokens,
            patched=list(self.patched),
            top=self.top,
            heads=[asdict(each) for each in self.heads],
            pairs=pairs,
            left_out=[asdict(each) for each in self.left_out],
        )

    def plot(
        self, path: str | os.PathLike[str], shown: Literal["frequency", "change"] = "frequency"
    ) -> None:
        """Draw layers by heads: the share of pairs with it among the top, or the mean change."""
        from mi_ref.output.plots import heat_map

        change, n_pairs = shown == "change", len(self.pairs)
        values = [[0.0] * len(line) for line in self.pairs[0].before]
        for each in self.heads:
            values[each.layer][each.head] = each.mean if change else each.count / n_pairs
        heat_map(
            path,
            values,
            rows=[str(n) for n in range(len(values))],
            columns=[str(n) for n in range(len(values[0]))],
            title=f"{self.origin.name}: last token -> subject, {n_pairs} pairs",
            row_label="layer",
            column_label="head",
            unit="mean change of attention" if change else f"share of pairs, in top {self.top}",
            centred=change,
        )


def factual_routing_pairs(
    model: Model,
    pairs: Iterable[PairLike],
    *,
    layers: Places = None,
    top: int = 10,
    skip: bool = False,
    prepend_bos: bool | None = None,
) -> FactualRoutingPairs:
    """Patch the subject of each prompt, and count whose attention to it changes most.

    Parameters
    ----------
    model : Model
        With attention patterns.
    pairs : iterable of FactPair or (prompt, counterfactual)
        Prompts of one pair have equal length; answers are not used.
    layers : Places
        Which to patch, as for `factual_routing`.
    top : int
        How many heads of each pair count as those that change most.
    skip : bool
        Leave out pairs that do not fit, and record them, where they are an error otherwise.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    PairsError
        If pairs do not fit: with every fault, by number.

    Returns
    -------
    FactualRoutingPairs
    """
    if whole(top, "top") < 1:
        raise ShapeError(f"top={top}: at least one head has to count.")
    block = patched_layers(model, layers)
    kept, left_out = fitting(
        pairs, lambda pair: read_fact_pair(model, pair, prepend_bos), skip=skip
    )
    found = tuple(
        factual_routing(model, list(pair.first), list(pair.second), subject=where, layers=block)
        for _, (pair, where) in tracked(kept, "pairs")
    )
    return FactualRoutingPairs(
        heads=_heads(found, top),
        pairs=found,
        numbers=tuple(number for number, _ in kept),
        left_out=left_out,
        top=int(top),
        patched=block,
        origin=model.origin,
    )


def _heads(pairs: Sequence[FactualRouting], top: int) -> tuple[HeadRouting, ...]:
    """Return every head over all pairs, sorted."""
    changes = [
        {(n, h): x for n, line in enumerate(pair.changes()) for h, x in enumerate(line)}
        for pair in pairs
    ]
    largest = [set(_largest(each, top)) for each in changes]
    heads = []
    for place in changes[0]:
        values = [each[place] for each in changes]
        error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
        size, count = fmean(map(abs, values)), sum(place in each for each in largest)
        heads.append(HeadRouting(*place, fmean(values), error, size, count))
    return tuple(sorted(heads, key=lambda head: (-head.count, -head.size)))


def _largest(changes: dict[tuple[int, int], float], top: int) -> list[tuple[int, int]]:
    """Return the heads of the largest changes; one that has not changed is none of them."""
    moved = [place for place, change in changes.items() if change != 0]
    return sorted(moved, key=lambda place: -abs(changes[place]))[:top]
