"""What patching one activation after the other does: a grid that prints, draws and saves itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, Unpack

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.prompts import PromptPair
from mi_ref.analysis.measure.metrics import Metric, logit_difference, recovery
from mi_ref.analysis.sweeps.sweep import SweepCell, SweepOptions, sweep
from mi_ref.errors import ArgumentError, ShapeError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Styled, Table, fixed

Direction: TypeAlias = Literal["denoising", "noising"]
Shown: TypeAlias = Literal["recovery", "value"]
_WIDE = 40
"""Columns beyond which the table lists the strongest cells."""


@dataclass(frozen=True, slots=True, repr=False)
class PatchingGrid(Result):
    """Predictions of a prompt into which activations of another were put, one place at a time.

    Attributes
    ----------
    site : str
        Where.
    direction : {"denoising", "noising"}
        Whether the clean prompt's activations went into the corrupted one's run, or the reverse.
    metric : Metric
        What `values` are.
    values : tuple of tuple of float
        By row, then column, in the metric's unit.
    recovery : tuple of tuple of float
        ``1 - KL(source ‖ patched) / KL(source ‖ base)``: 1 where the patched run predicts as the
        prompt that the activation came from, 0 where the patch did nothing.
    base, source : float
        The metric without a patch: of the prompt that was patched, and of the other.
    kl : float
        ``KL(source ‖ base)`` in nats.
    rows, columns : tuple of str
        What they stand for, each with its heading in `axes`.
    base_tokens, source_tokens : tuple of int
        Tokens of the prompt that was patched, and of the other.
    """

    site: str
    direction: Direction
    metric: Metric
    values: tuple[tuple[float, ...], ...]
    recovery: tuple[tuple[float, ...], ...]
    base: float
    source: float
    kl: float
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    axes: tuple[str, str]
    base_tokens: tuple[int, ...]
    source_tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def table(self, shown: Shown = "recovery") -> Table:
        """Return the grid of the recovery, or of the metric; of a wide one, the strongest cells."""
        if len(self.columns) > _WIDE:
            return self.strongest()
        headings = [f">{self.axes[0]}", *(f">{name}" for name in self.columns)]
        table = Table(headings, self._what(shown))
        grid = self.recovery if shown == "recovery" else self.values
        for name, line, shares in zip(self.rows, grid, self.recovery, strict=True):
            cells = (
                Styled((fixed(value, 3), "bold green" if share >= 0.5 else ""))
                for value, share in zip(line, shares, strict=True)
            )
            table.add(name, *cells)
        return table

    def strongest(self, top: int = 20) -> Table:
        """Return the cells of the largest recovery, of either sign."""
        table = Table(
            [self.axes[0], self.axes[1], ">recovery", f">{self.metric.label}"],
            f"largest recoveries, {self.site}, {self.direction}",
        )
        places = [(r, c) for r in range(len(self.rows)) for c in range(len(self.columns))]
        places.sort(key=lambda place: -abs(self.recovery[place[0]][place[1]]))
        for r, c in places[:top]:
            numbers = (fixed(self.recovery[r][c], 3), fixed(self.values[r][c], 3))
            table.add(self.rows[r], self.columns[c], *numbers)
        return table

    def summary(self) -> str:
        """Return what lies between the two prompts as a sentence."""
        return (
            f"{self.metric.label} is {self.base:.3f} without a patch and {self.source:.3f} in the"
            f" other prompt; KL {self.kl:.3g} nats."
        )

    def record(self) -> dict[str, Any]:
        """Return both grids, with what rows and columns are."""
        return record_of(
            self,
            "patching_grid",
            [self.base_tokens, self.source_tokens],
            prompts=["base", "source"],
            site=self.site,
            direction=self.direction,
            metric=self.metric.record(),
            base=self.base,
            source=self.source,
            kl=self.kl,
            axes=list(self.axes),
            rows=list(self.rows),
            columns=list(self.columns),
            values=[list(line) for line in self.values],
            recovery=[list(line) for line in self.recovery],
        )

    def plot(self, path: str | os.PathLike[str], shown: Shown = "recovery") -> None:
        """Draw a heat map of the recovery, or of the metric."""
        from mi_ref.output.plots import heat_map

        heat_map(
            path,
            self.recovery if shown == "recovery" else self.values,
            rows=self.rows,
            columns=self.columns,
            title=f"{self.origin.name}: {self._what(shown)}",
            row_label=self.axes[0],
            column_label=self.axes[1],
            unit="KL recovery" if shown == "recovery" else self.metric.label,
            centred=True,
        )

    def _what(self, shown: Shown) -> str:
        label = "KL recovery" if shown == "recovery" else self.metric.label
        return f"{label}, {self.site}, {self.direction}"


@dataclass(frozen=True, slots=True)
class Patching:
    """The two runs that a grid of patches is between."""

    model: Model
    direction: Direction
    base_tokens: tuple[int, ...]
    source_tokens: tuple[int, ...]
    metric: Metric
    base_logits: Float[Array, " d_vocab"]
    source_logits: Float[Array, " d_vocab"]


def read_patching(
    model: Model, pair: PromptPair, direction: Direction, metric: Metric | None
) -> Patching:
    """Run clean (the pair's first) and corrupted prompt, and choose the metric.

    The metric is, if None, the logit difference between what the clean and the corrupted prompt
    predict, each its likeliest token.

    Raises
    ------
    ShapeError
        If there is no such direction, or both prompts predict the same token and metric is None.
    """
    if direction not in ("denoising", "noising"):
        raise ArgumentError(f"direction={direction!r}: expected 'denoising' or 'noising'.")
    runs = [model.run(list(ids), logits="last") for ids in (pair.first, pair.second)]
    clean, corrupted = (run.logits_at(-1) for run in runs)
    if metric is None:
        first, second = (run.top(1)[0] for run in runs)
        if first.id == second.id:
            raise ShapeError(
                f"both prompts predict {first.token!r}, so that no logit difference tells them"
                " apart: say what to measure, metric=."
            )
        metric = logit_difference(model, first.id, second.id)
    if direction == "denoising":
        return Patching(model, direction, pair.second, pair.first, metric, corrupted, clean)
    return Patching(model, direction, pair.first, pair.second, metric, clean, corrupted)


def patch_grid(
    patching: Patching,
    cell: Callable[[int, int], SweepCell | None],
    *,
    site: str,
    row_names: Sequence[str],
    column_names: Sequence[str],
    axes: tuple[str, str],
    **options: Unpack[SweepOptions],
) -> PatchingGrid:
    """Sweep over a grid of patches.

    Parameters
    ----------
    patching : Patching
        Between which prompts.
    cell : callable
        Given the number of a row and of a column, returns their edits; None where they cannot
        have an effect, which is not run.
    site : str
        Where, for headings.
    row_names, column_names : sequence of str
        What they are.
    axes : tuple of str
        Headings of rows and columns.
    **options
        As for `sweep`.
    """
    model, width, xp = patching.model, len(column_names), patching.model.backend.xp
    cells = [cell(r, c) for r in range(len(row_names)) for c in range(width)]
    share = recovery(model, patching.source_logits, patching.base_logits)
    run = [each for each in cells if each is not None]
    found = sweep(model, list(patching.base_tokens), run, [patching.metric, share], **options)
    base = float(patching.metric(patching.base_logits, xp=xp))
    numbers = iter(found.values)
    values = [(base, 0.0) if each is None else next(numbers) for each in cells]
    lines = [values[start : start + width] for start in range(0, len(cells), width)]
    return PatchingGrid(
        site=site,
        direction=patching.direction,
        metric=patching.metric,
        values=tuple(tuple(value for value, _ in line) for line in lines),
        recovery=tuple(tuple(value for _, value in line) for line in lines),
        base=base,
        source=float(patching.metric(patching.source_logits, xp=xp)),
        kl=share.corrupted,
        rows=tuple(row_names),
        columns=tuple(column_names),
        axes=axes,
        base_tokens=patching.base_tokens,
        source_tokens=patching.source_tokens,
        origin=model.origin,
    )
