"""Sweeps: many independent runs of one model, each with edits of its own, and what each predicts.

Cells whose edits are interventions run as rows of one batch, each edit in its own row; a cell with
a bare function or array runs alone. A row computes what it would alone, up to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypedDict

from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt
from mi_ref.analysis.measure.metrics import Metric
from mi_ref.analysis.sweeps.cells import SweepCell as SweepCell, batches, resolve_cells
from mi_ref.analysis.sweeps.file import SweepFile, identity
from mi_ref.analysis.sweeps.workers import run_batches
from mi_ref.errors import ShapeError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.prompt import Prompt


class SweepOptions(TypedDict, total=False):
    """How a sweep is computed; see `sweep`. Analyses made of one hand these on."""

    rows: int | None
    executor: Executor | None
    resume: str | os.PathLike[str] | None


@dataclass(frozen=True, slots=True, repr=False)
class Sweep(Result):
    """What every cell of a sweep predicts.

    Attributes
    ----------
    values : tuple of tuple of float
        By cell, then metric, in the metrics' units.
    labels : tuple of str
        What the cells are called.
    metrics : tuple of Metric
        What was measured.
    position : int
        After which position, as the caller counted it.
    tokens : tuple of tuple of int
        Each cell's prompt.
    """

    values: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...]
    metrics: tuple[Metric, ...]
    position: int
    tokens: tuple[tuple[int, ...], ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per cell, one column per metric."""
        table = Table([">cell", "label", *(f">{metric.label}" for metric in self.metrics)])
        for number, (label, values) in enumerate(zip(self.labels, self.values, strict=True)):
            table.add(number, label, *(f"{value:.4g}" for value in values))
        return table

    def record(self) -> dict[str, Any]:
        """Return metrics, labels and every number."""
        prompts = list(dict.fromkeys(self.tokens))
        return record_of(
            self,
            "sweep",
            prompts,
            position=self.position,
            metrics=[metric.record() for metric in self.metrics],
            cells=[
                {"label": label, "prompt": prompts.index(tokens), "values": list(values)}
                for label, tokens, values in zip(self.labels, self.tokens, self.values, strict=True)
            ],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw one curve per metric over the cells' numbers."""
        from mi_ref.output.plots import curves

        curves(
            path,
            [float(number) for number in range(len(self.values))],
            {m.label: [row[n] for row in self.values] for n, m in enumerate(self.metrics)},
            title=f"{self.origin.name}: sweep of {len(self.values)} cells",
            x_label="cell",
            y_label=", ".join(dict.fromkeys(f"{m.label} [{m.unit}]" for m in self.metrics)),
        )


def sweep(
    model: Model,
    prompt: Prompt,
    cells: Iterable[SweepCell],
    metric: Metric | Sequence[Metric],
    *,
    position: int = -1,
    rows: int | None = None,
    executor: Executor | None = None,
    resume: str | os.PathLike[str] | None = None,
    prepend_bos: bool | None = None,
) -> Sweep:
    """Run every cell and measure what it predicts to follow one position.

    Parameters
    ----------
    model : Model
        What runs.
    prompt : str, sequence of int, or Array
        One prompt, of the cells that have none of their own.
    cells : iterable of SweepCell
        In the order of the result.
    metric : Metric or sequence of Metric
        What to measure; see :mod:`mi_ref.analysis.metrics`.
    position : int
        A position of each cell's prompt; negative numbers count from its end.
    rows : int or None
        How many cells run as one batch: memory grows with it. None: 16, or of prompts beyond 256
        tokens as many as have 4,096 in all.
    executor : concurrent.futures.Executor or None
        Who computes; dask's ``client.get_executor()`` too. Threads share the model; any other kind
        of worker loads it once, by name, backend, dtype and revision.
    resume : str or path, or None
        A file that finished cells are written to as the sweep goes. A sweep that was interrupted
        reads them from it and goes on; with the same `rows`, to the same file bit for bit.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError, ShapeError, TokenError
        If a cell or the position does not fit.
    SweepError
        If the file is another sweep's.
    """
    given = _read_cells(cells)
    metrics, position = _read_metrics(metric), whole(position, "position")
    resolved = resolve_cells(model, prompt, given, prepend_bos)
    shortest = min(len(cell.tokens) for cell in resolved)
    if not -shortest <= position < shortest:
        raise ShapeError(f"position={position}: the shortest prompt has {shortest} tokens.")
    cut = list(batches(resolved, metrics, position, rows))
    file = None
    if resume is not None:
        own = one_prompt(model, prompt, prepend_bos)
        file = SweepFile(resume, identity(model, own, resolved, metrics, position))
    return Sweep(
        values=tuple(run_batches(model, cut, executor, file)),
        labels=tuple(cell.label for cell in given),
        metrics=metrics,
        position=position,
        tokens=tuple(cell.tokens for cell in resolved),
        origin=model.origin,
    )


def _read_cells(cells: Iterable[SweepCell]) -> tuple[SweepCell, ...]:
    given = () if isinstance(cells, SweepCell) else tuple(cells)
    if isinstance(cells, SweepCell) or not all(isinstance(each, SweepCell) for each in given):
        raise ShapeError(f"cells={cells!r}: a sequence of SweepCell is needed.")
    return given


def _read_metrics(metric: Metric | Sequence[Metric]) -> tuple[Metric, ...]:
    given = tuple(metric) if isinstance(metric, list | tuple) else (metric,)
    wrong = [each for each in given if not isinstance(each, Metric)]
    if wrong or not given:
        raise ShapeError(
            f"metric={wrong[0] if wrong else given!r}: a sweep needs something to measure, one"
            " metric of mi_ref.analysis.metrics or several."
        )
    return given
