"""What ablations are measured by, and how their effects are listed and drawn."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal, TypeAlias

from mi_ref.analysis.ablation.parts import Part, Replacement, edits_of
from mi_ref.analysis.measure.metrics import (
    Logit,
    LogitDifference,
    Metric,
    divergence,
    logit_difference,
    token,
)
from mi_ref.analysis.sweeps.cells import SweepCell
from mi_ref.errors import ShapeError
from mi_ref.model import LogitsWanted, Model
from mi_ref.output import plots

Shown: TypeAlias = Literal["kl", "logit_difference"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """What is read of a prompt's ablated runs, and what the intact model gives for it."""

    divergence: Metric
    """From the intact prediction."""
    followed: Logit | LogitDifference | None
    intact: float | None
    """The intact model's value of `followed`; None if nothing is followed."""

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """The divergence, then what is followed."""
        return (self.divergence,) if self.followed is None else (self.divergence, self.followed)

    @property
    def tokens(self) -> tuple[int | None, int | None]:
        """Ids of the target and of what it is compared with."""
        if self.followed is None:
            return None, None
        other = self.followed.other.id if isinstance(self.followed, LogitDifference) else None
        return self.followed.token.id, other


def read(
    model: Model,
    ids: Sequence[int],
    place: int,
    target: str | int | None,
    other: str | int | None,
) -> Measurement:
    """Run the intact model and return what ablated runs are measured by.

    Raises
    ------
    ShapeError
        If there is an `other` without a target.
    TokenError
        If the two are one token.
    """
    if target is None and other is not None:
        raise ShapeError(f"other={other!r} is compared with a target: say target= too.")
    followed: Logit | LogitDifference | None = None
    if target is not None and other is not None:
        followed = logit_difference(model, target, other)
    elif target is not None:
        followed = Logit(token(model, target))
    wanted: LogitsWanted = "last" if place == len(ids) - 1 else "all"
    row = model.run(list(ids), logits=wanted).logits_at(-1 if wanted == "last" else place)
    intact = None if followed is None else float(followed(row, xp=model.backend.xp))
    return Measurement(divergence(model, row), followed, intact)


def cells_of(
    parts: Sequence[Part], values: Sequence[Replacement], positions: Sequence[int]
) -> tuple[SweepCell, ...]:
    """Return a cell for each part and each value in its place, the values varying fastest."""
    return tuple(
        SweepCell(
            tuple(edits_of(part, value, positions)),
            label=f"{part.what} {name(part.layer, part.index)}",
        )
        for part in parts
        for value in values
    )


def over_draws(found: Sequence[Sequence[float]], draws: int) -> list[list[float]]:
    """Return each part's metrics: the means over successive cells, `draws` of each part."""
    groups = (found[start : start + draws] for start in range(0, len(found), draws))
    return [[fmean(column) for column in zip(*group, strict=True)] for group in groups]


def name(layer: int, index: int | None) -> str:
    """Return a part as it shows in tables: ``3`` of whole parts, ``3.1`` of heads and neurons."""
    return f"{layer}" if index is None else f"{layer}.{index}"


def part_name(what: str, layer: int, index: int | None) -> str:
    """Return a part as it reads in a sentence: ``attention 3``, ``head 3.1``."""
    return f"{'attention' if what == 'attn' else what} {name(layer, index)}"


def draw(
    path: str | os.PathLike[str],
    values: Mapping[tuple[int, int | None], float],
    *,
    what: str,
    title: str,
    metric: Shown,
) -> None:
    """Draw layers by heads or neurons; see `plots.heat_map`.

    Parameters
    ----------
    path : str or path
        The file to write.
    values : mapping of (int, int or None) to float
        By layer and head or neuron, of every layer the same ones.
    what : str
        Kind of part.
    title : str
        Title of the picture.
    metric : {"kl", "logit_difference"}
        What `values` are: divergences, or changes of the logit difference.
    """
    layers = sorted({layer for layer, _ in values})
    indices = list(dict.fromkeys(index for _, index in values))
    plots.heat_map(
        path,
        [[values[layer, index] for index in indices] for layer in layers],
        rows=list(map(str, layers)),
        columns=[what if index is None else str(index) for index in indices],
        title=title,
        row_label="layer",
        column_label=what,
        unit="KL in nats" if metric == "kl" else "change of the logit difference",
        centred=metric != "kl",
    )
