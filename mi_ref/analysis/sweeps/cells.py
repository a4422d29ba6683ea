"""Cells of a sweep: each one run of its own, and how several run as rows of one batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mi_ref._typing import Array
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt
from mi_ref.analysis.measure.metrics import Metric
from mi_ref.analysis.sweeps.prefix import Prefix
from mi_ref.edits.intervention import Intervention, indices
from mi_ref.errors import HookError, ShapeError
from mi_ref.hooks.capture import Edit
from mi_ref.hooks.selectors import Selector, select
from mi_ref.hooks.sites import LayerPoint, Point, at
from mi_ref.model import LogitsWanted, Model
from mi_ref.text.prompt import Prompt

_MOST_ROWS, _MOST_TOKENS = 16, 4096
"""Size of a batch unless the caller gives the number of rows: whichever is reached first."""


@dataclass(frozen=True, slots=True, eq=False)
class SweepCell:
    """One run of a sweep."""

    edits: tuple[tuple[Selector, Edit], ...]
    prompt: Prompt | None = None
    """None for the sweep's own prompt."""
    label: str = ""
    """What the cell is called in tables."""


@dataclass(frozen=True, slots=True, eq=False)
class ResolvedCell:
    """A cell in terms of one model: its token ids, and each edit at one point."""

    tokens: tuple[int, ...]
    edits: tuple[tuple[Point, Edit], ...]

    @property
    def shareable(self) -> bool:
        """Whether this can be one row of a batch: bare functions and arrays cannot."""
        return all(
            isinstance(edit, Intervention) and edit.row_by_row(point.site.axes)
            for point, edit in self.edits
        )

    def first_layer(self, model: Model) -> int:
        """Return the first layer that an edit is in; without one, how many layers there are."""
        return min((_layer(point, model) for point, _ in self.edits), default=model.cfg.n_layers)


@dataclass(frozen=True, slots=True, eq=False)
class CellBatch:
    """Cells that run together, of prompts of one length, and what is measured of them."""

    start: int
    """Number of the first of them in the sweep."""
    cells: tuple[ResolvedCell, ...]
    metrics: tuple[Metric, ...]
    position: int


def resolve_cells(
    model: Model, prompt: Prompt, cells: Sequence[SweepCell], prepend_bos: bool | None
) -> tuple[ResolvedCell, ...]:
    """Read every cell's prompt and selectors.

    Raises
    ------
    HookError
        If a selector names nothing in this model, or an edit another row than the only one.
    ShapeError
        If there are no cells, or a prompt is several.
    """
    if not cells:
        raise ShapeError("a sweep needs at least one cell; cells is empty.")
    own = one_prompt(model, prompt, prepend_bos)
    resolved = []
    for cell in cells:
        ids = own if cell.prompt is None else one_prompt(model, cell.prompt, prepend_bos)
        edits = tuple(
            (point, _checked(edit))
            for selector, edit in cell.edits
            for point in select(selector, model.hook_points, lambda _: True)
        )
        resolved.append(ResolvedCell(ids, edits))
    return tuple(resolved)


def batches(
    cells: Sequence[ResolvedCell],
    metrics: Sequence[Metric],
    position: int,
    rows: int | None,
    *,
    start: int = 0,
) -> Iterator[CellBatch]:
    """Yield cells as the batches that they run in; the first cell is number `start`."""
    for chunk in chunks(cells, rows):
        own = tuple(cells[n] for n in chunk)
        yield CellBatch(start + chunk.start, own, tuple(metrics), position)


def rows_of(rows: int | None, n_pos: int) -> int:
    """Return how many cells run as one batch if their prompts have so many tokens.

    Raises
    ------
    ShapeError
        If the caller asks for less than one.
    """
    if rows is None:
        return max(1, min(_MOST_ROWS, _MOST_TOKENS // n_pos))
    if whole(rows, "rows") < 1:
        raise ShapeError(f"rows={rows}: a sweep runs at least one cell at a time.")
    return rows


def chunks(cells: Sequence[ResolvedCell], rows: int | None) -> Iterator[range]:
    """Yield successive cells that run together, see `rows_of`: their prompts are of one length."""
    start = 0
    while start < len(cells):
        stop, most = start + 1, rows_of(rows, len(cells[start].tokens))
        while (
            stop < min(start + most, len(cells))
            and cells[start].shareable
            and cells[stop].shareable
            and len(cells[stop].tokens) == len(cells[start].tokens)
        ):
            stop += 1
        yield range(start, stop)
        start = stop


def evaluate(
    model: Model,
    cells: Sequence[ResolvedCell],
    metrics: Sequence[Metric],
    position: int,
    prefix: Prefix | None = None,
) -> list[tuple[float, ...]]:
    """Run cells as rows of one batch; return each cell's metrics at one position.

    Layers before the first edit compute the same in every row of one prompt: once is enough, and
    `prefix` has them of the batch before.
    """
    edits: list[tuple[Selector, Edit]] = [
        (point, _in_row(edit, row) if len(cells) > 1 else edit)
        for row, cell in enumerate(cells)
        for point, edit in cell.edits
    ]
    n_pos, layer = len(cells[0].tokens), min(cell.first_layer(model) for cell in cells)
    prompts = [cell.tokens for cell in cells]
    last = position % n_pos == n_pos - 1
    wanted: LogitsWanted = "last" if last else "all"
    if layer > 0 and len(set(prompts)) < len(cells):
        begun = (prefix or Prefix(model)).rows(prompts, layer)
        run = model.run(begun, edits=edits, start_at_layer=layer, logits=wanted)
    else:
        run = model.run([list(prompt) for prompt in prompts], edits=edits, logits=wanted)
    assert run.logits is not None
    logits = run.logits[:, 0 if last else position, :]
    columns = [_plain(model, metric(logits, xp=model.backend.xp)) for metric in metrics]
    return list(zip(*columns, strict=True))


def _plain(model: Model, x: Array) -> list[float]:
    listed: list[float] = model.backend.to_host(x).tolist()
    return listed


def _layer(point: Point, model: Model) -> int:
    """Return the layer that a point is in; 0 of those before all layers."""
    if isinstance(point, LayerPoint):
        return point.layer
    return 0 if point in (at.embed, at.pos_embed) else model.cfg.n_layers


def _checked(edit: Edit) -> Edit:
    """Return an edit if it means the one row that its cell has."""
    if isinstance(edit, Intervention) and "batch" in edit.where:
        try:
            found = indices(edit.where["batch"], 1)
        except IndexError as error:
            raise HookError(
                f"{edit!r} in a sweep: rows {error}. A cell is one prompt: leave rows= out."
            ) from None
        if not found:
            raise HookError(f"{edit!r} in a sweep names no row: leave rows= out.")
    return edit


def _in_row(edit: Edit, row: int) -> Edit:
    assert isinstance(edit, Intervention)
    return edit.within(batch=(row,))
