"""One sweep over several prompts, each with cells and metrics of its own: one bar, one file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_ref.analysis.measure.metrics import Metric
from mi_ref.analysis.sweeps.cells import CellBatch, ResolvedCell, SweepCell, batches, resolve_cells
from mi_ref.analysis.sweeps.file import SweepFile, identity
from mi_ref.analysis.sweeps.sweep import SweepOptions
from mi_ref.analysis.sweeps.workers import run_batches
from mi_ref.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class PromptCells:
    """Runs of one prompt, and what is measured of each."""

    tokens: tuple[int, ...]
    cells: tuple[SweepCell, ...]
    metrics: tuple[Metric, ...]
    position: int
    """After which the prediction is read, from the front."""


def sweep_prompts(
    model: Model, prompts: Sequence[PromptCells], options: SweepOptions
) -> list[list[tuple[float, ...]]]:
    """Run every cell of every prompt; cells of two prompts never share a batch.

    Parameters
    ----------
    model : Model
        What runs.
    prompts : sequence of PromptCells
        Each with as many metrics.
    options : SweepOptions
        As for `mi_ref.analysis.sweeps.sweep.sweep`.

    Returns
    -------
    list
        By prompt, then cell, then metric.

    Raises
    ------
    ShapeError
        If ``rows`` is below 1.
    SweepError
        If the file to resume from is another sweep's.
    """
    rows, resume = options.get("rows"), options.get("resume")
    resolved = [resolve_cells(model, list(each.tokens), each.cells, None) for each in prompts]
    every, start = list[CellBatch](), 0
    for prompt, cells in zip(prompts, resolved, strict=True):
        every += batches(cells, prompt.metrics, prompt.position, rows, start=start)
        start += len(cells)
    file = None if resume is None else SweepFile(resume, _identity(model, prompts, resolved))
    values = run_batches(model, every, options.get("executor"), file)
    rest = iter(values)
    return [[next(rest) for _ in cells] for cells in resolved]


def _identity(
    model: Model, prompts: Sequence[PromptCells], resolved: Sequence[Sequence[ResolvedCell]]
) -> dict[str, Any]:
    """Return what makes the sweep this one: of each metric, its record for every prompt."""
    cells = [cell for group in resolved for cell in group]
    columns = zip(*(each.metrics for each in prompts), strict=True)
    return {
        **identity(model, (), cells, (), 0),
        "tokens": [list(each.tokens) for each in prompts],
        "position": [each.position for each in prompts],
        "metrics": [[metric.record() for metric in column] for column in columns],
    }
