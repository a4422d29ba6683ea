"""Pictures that several analyses share: heat maps, curves and bars. They need matplotlib."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_ref.output.files import write_whole
from mi_ref.output.tables import fixed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
INK, FAINT = "#1b2430", "#5b6675"
_WRITTEN = 400
"""Cells beyond which numbers are no longer written into them."""
_TICKS = 40
_PER_INCH = 8
"""Letters of a title, with room for the axis beside it."""


def save_figure(path: str | os.PathLike[str], draw: Callable[[], Figure]) -> None:
    """Write the figure that `draw` returns: whole or not at all."""
    check_plot(path)
    figure = draw()
    suffix = Path(path).suffix.lower().lstrip(".")
    write_whole(path, lambda file: figure.savefig(file, format=suffix, dpi=160))


def heat_map(
    path: str | os.PathLike[str],
    values: Sequence[Sequence[float]],
    *,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    row_label: str,
    column_label: str,
    unit: str,
    centred: bool = False,
    digits: int = 2,
) -> None:
    """Draw a table of numbers, first row at the bottom, as layers are counted.

    Parameters
    ----------
    path : str or path
        The file to write.
    values : sequence of sequence of float
        By row, then column.
    rows, columns : sequence of str
        Their names.
    title, row_label, column_label, unit : str
        What is shown, what rows and columns are, and what the numbers are.
    centred : bool
        Whether colours diverge from zero, for numbers of either sign.
    digits : int
        After the point, in cells.
    """

    def draw() -> Figure:
        from matplotlib.figure import Figure

        small = len(rows) * len(columns) <= _WRITTEN
        width = 2.4 + len(columns) * (0.62 if small else max(0.1, 9 / len(columns)))
        height = 1.9 + len(rows) * (0.36 if small else max(0.1, 6 / len(rows)))
        figure = Figure(figsize=(max(width, 4.6), max(height, 3.0)), layout="constrained")
        axes = figure.add_subplot()
        bound = max((abs(v) for row in values for v in row if v == v), default=1.0) or 1.0
        image = axes.pcolormesh(
            [list(row) for row in values], cmap="RdBu_r" if centred else colours(),
            edgecolors="white", linewidth=1.0 if small else 0,
            vmin=-bound if centred else None, vmax=bound if centred else None,
        )  # fmt: skip
        if small:
            _write_numbers(axes, values, image, digits)
        _label(figure, axes, title, row_label, column_label)
        _ticks(axes, "y", rows)
        _ticks(axes, "x", columns)
        bar = figure.colorbar(image, ax=axes, pad=0.02, aspect=30, shrink=0.9)
        bar.set_label(unit, color=FAINT)
        bar.outline.set_visible(False)
        bar.ax.tick_params(colors=FAINT, length=0, labelsize=8)
        return figure

    save_figure(path, draw)


def curves(
    path: str | os.PathLike[str],
    x: Sequence[float],
    lines: dict[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    """Draw one curve for each of `lines` over the same `x`."""

    def draw() -> Figure:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6.4, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for name, values in lines.items():
            axes.plot(x, values, marker="o", markersize=3.5, linewidth=1.6, label=name)
        _label(figure, axes, title, y_label, x_label)
        axes.grid(alpha=0.25)
        _legend(figure, len(lines))
        return figure

    save_figure(path, draw)


def bars(
    path: str | os.PathLike[str],
    names: Sequence[str],
    groups: dict[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    y_label: str,
) -> None:
    """Draw a bar for each name, the first on top, and each of `groups` in a colour of its own."""

    def draw() -> Figure:
        from matplotlib.figure import Figure

        thick = 0.8 / len(groups)
        figure = Figure(figsize=(6.4, 1.6 + 0.34 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        for group, (name, values) in enumerate(groups.items()):
            places = [n + group * thick for n in range(len(names))]
            axes.barh(places, values, height=thick, label=name)
        _label(figure, axes, title, y_label, x_label)
        middle = (len(groups) - 1) * thick / 2
        axes.set_yticks([n + middle for n in range(len(names))], names, parse_math=False)
        axes.invert_yaxis()
        axes.grid(alpha=0.25, axis="x")
        _legend(figure, len(groups))
        return figure

    save_figure(path, draw)


def _legend(figure: Figure, entries: int) -> None:
    """Name several curves or bars below the axes, where nothing can lie behind the names."""
    if entries > 1:
        columns = min(entries, 4)
        figure.legend(loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _write_numbers(axes: Axes, values: Sequence[Sequence[float]], image: Any, digits: int) -> None:
    for row, line in enumerate(values):
        for column, value in enumerate(line):
            red, green, blue, _ = image.cmap(image.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            axes.text(
                column + 0.5, row + 0.5, fixed(value, digits), ha="center", va="center",
                fontsize=7.5, color="white" if dark else INK,
            )  # fmt: skip


def _label(figure: Figure, axes: Axes, title: str, y_label: str, x_label: str) -> None:
    lines = textwrap.wrap(title, int(figure.get_figwidth() * _PER_INCH))
    axes.set_title("\n".join(lines), loc="left", color=INK, fontsize=11, fontweight="bold",
                   pad=12, parse_math=False)  # fmt: skip
    axes.set_xlabel(x_label, color=FAINT)
    axes.set_ylabel(y_label, color=FAINT)
    axes.tick_params(colors=INK, length=0, labelsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _ticks(axes: Axes, which: str, names: Sequence[str]) -> None:
    every = -(-len(names) // _TICKS)
    places = range(0, len(names), every)
    setter = axes.set_xticks if which == "x" else axes.set_yticks
    setter([n + 0.5 for n in places], [names[n] for n in places], parse_math=False)
    if which == "x" and max((len(name) for name in names), default=0) > 5:
        for label in axes.get_xticklabels():
            label.set(rotation=60, ha="right", rotation_mode="anchor")


def check_plot(path: str | os.PathLike[str]) -> None:
    """Refuse what `plot` cannot do, before anything is computed for it.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is missing.
    ValueError
        If the file's name ends in no format known here.
    """
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise ModuleNotFoundError(
            "plots need matplotlib, which is not installed: pip install 'mi_ref[plot]'."
        )
    if Path(path).suffix.lower().lstrip(".") not in FORMATS:
        raise ValueError(f"{os.fspath(path)!r}: a plot's name ends in .{', .'.join(FORMATS)}.")


def colours() -> Any:
    """Return the scale of light to dark blue."""
    from matplotlib.colors import LinearSegmentedColormap

    stops = ["#f3f6fa", "#cfe3ee", "#86bfd6", "#3c8fb3", "#16597d", "#0a2f4a"]
    return LinearSegmentedColormap.from_list("mi_ref", stops)
