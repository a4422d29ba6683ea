"""A lens as a picture: a heat map of layers over positions. Needs matplotlib."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from mi_ref.analysis.lens.cells import LensCells
from mi_ref.output.files import write_whole
from mi_ref.output.plots import check_plot, colours

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT = "#1b2430", "#5b6675"
_LABELLED = 40
"""Positions beyond which cells become too many to be written in."""


def plot(lens: LensCells, path: str | os.PathLike[str]) -> None:
    """Write the heat map: see `LogitLens.plot`."""
    check_plot(path)
    figure = draw(lens)
    suffix = Path(path).suffix.lower().lstrip(".")
    write_whole(path, lambda file: figure.savefig(file, format=suffix, dpi=160))


def draw(lens: LensCells) -> Figure:
    """Return the heat map as a figure, which belongs to no window and no global state."""
    from matplotlib.figure import Figure

    n_pos, n_layers = len(lens.positions), lens.n_layers
    labelled = n_pos <= _LABELLED
    width = 2.2 + n_pos * (1.05 if labelled else 0.16)
    height = 1.9 + n_layers * (0.42 if labelled else 0.24)
    figure = Figure(figsize=(max(width, 5.5), max(height, 3.4)), layout="constrained")
    axes = figure.add_subplot()
    image = axes.pcolormesh(
        [[cell.target.probability for cell in row] for row in lens.cells],
        cmap=colours(), vmin=0, vmax=1, edgecolors="white", linewidth=1.5 if labelled else 0,
    )  # fmt: skip
    if labelled:
        _write_tokens(lens, axes)
    _label_axes(lens, axes, labelled)
    bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=30, shrink=0.9)
    bar.set_label("probability of the target", color=_FAINT)
    bar.outline.set_visible(False)
    bar.ax.tick_params(colors=_FAINT, length=0, labelsize=8)
    return figure


def _write_tokens(lens: LensCells, axes: Axes) -> None:
    """Write each cell's likeliest token into it, bold where it is the target."""
    for layer, row in enumerate(lens.cells):
        for column, cell in enumerate(row):
            leader = cell.top[0]
            won = leader.id == cell.target.id
            axes.text(
                column + 0.5, layer + 0.5, shown(leader.token), ha="center", va="center",
                fontsize=8.5, parse_math=False, clip_on=True,
                fontweight="bold" if won else "normal",
                color="white" if cell.target.probability > 0.55 else _INK if won else _FAINT,
            )  # fmt: skip


def _label_axes(lens: LensCells, axes: Axes, labelled: bool) -> None:
    targets = {cell.target.id: cell.target.token for cell in lens.cells[-1]}
    what = repr(next(iter(targets.values()))) if len(targets) == 1 else "the model's own prediction"
    name = Path(lens.origin.name).name
    axes.set_title(
        f"Logit lens of {name}: {what}, layer by layer",
        loc="left", color=_INK, fontsize=11, fontweight="bold", pad=12, parse_math=False,
    )  # fmt: skip
    every = 1 if labelled else -(-len(lens.positions) // _LABELLED)
    ticks = range(0, len(lens.positions), every)
    tokens = [shown(lens.str_tokens[lens.positions[n]]) for n in ticks]
    axes.set_xticks([n + 0.5 for n in ticks], tokens, parse_math=False)
    if max(map(len, tokens)) > 9 or not labelled:
        axes.tick_params(axis="x", rotation=60)
    axes.set_yticks([n + 0.5 for n in range(lens.n_layers)], map(str, range(lens.n_layers)))
    axes.set_xlabel("after token", color=_FAINT)
    axes.set_ylabel("after layer", color=_FAINT)
    axes.tick_params(colors=_INK, length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def shown(token: str) -> str:
    """Return a token as it is drawn: one line, spaces visible, not too long."""
    text = repr(token)[1:-1].replace(" ", "␣")
    return text if len(text) <= 11 else f"{text[:10]}…"
