"""Pictures of AlgZoo's networks: the plane of two numbers, weights, or attention."""

from __future__ import annotations

import os
from math import cos, radians, sin
from typing import TYPE_CHECKING

from mi_ref.algzoo.findings import Findings
from mi_ref.output import plots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GRID = 160
_REACH = 2.0


def plot(report: Findings, path: str | os.PathLike[str]) -> None:
    """Draw what tells most; see `AlgZooReport.plot`."""
    if report.attention:
        _attention(report, path)
    elif report.regions and report.network.n_answers == 2:
        plots.save_figure(path, lambda: _plane(report))
    else:
        _weights(report, path)


def _attention(report: Findings, path: str | os.PathLike[str]) -> None:
    rows = [
        (f"layer {layer}, pos {pos}", list(row))
        for layer, pattern in enumerate(report.attention)
        for pos, row in enumerate(pattern)
    ]
    plots.heat_map(
        path,
        [row for _, row in rows],
        rows=[name for name, _ in rows],
        columns=[str(pos) for pos in range(report.n)],
        title="Where each position looks, on average",
        row_label="from",
        column_label="to position",
        unit="attention",
    )


def _weights(report: Findings, path: str | os.PathLike[str]) -> None:
    network = report.standard or report.network
    into, across, out = (network.backend.to_host(w).tolist() for w in network.weights.values())
    sides = into, across, [list(column) for column in zip(*out, strict=True)]
    # Each kind by itself: those to answers may well be a hundred times the others.
    largest = [max(abs(weight) for row in side for weight in row) or 1.0 for side in sides]
    neurons, answers = range(len(across)), range(len(out))
    shares = [
        [weight / most for side, most in zip(sides, largest, strict=True) for weight in side[j]]
        for j in neurons
    ]
    plots.heat_map(
        path,
        shares,
        rows=list(map(str, neurons)),
        columns=["input", *(f"from {j}" for j in neurons), *(f"to answer {j}" for j in answers)],
        title=f"Weights{', standardised' if report.standard else ''}",
        row_label="neuron",
        column_label="largest: input {:.3g}, from neurons {:.3g}, to answers {:.3g}".format(
            *largest
        ),
        unit="weight over the largest of its kind",
        centred=True,
    )


def _plane(report: Findings) -> Figure:
    """Return the difference of two logits over the plane, with the borders of its regions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.2, 5.0), layout="constrained")
    axes = figure.add_subplot()
    ticks = [_REACH * (2 * n / _GRID - 1) for n in range(_GRID + 1)]
    out = report.network.backend.to_host(
        report.network.logits([[x0, x1] for x1 in ticks for x0 in ticks])
    ).tolist()
    apart = [second - first for first, second in out]
    rows = [apart[n : n + len(ticks)] for n in range(0, len(apart), len(ticks))]
    bound = max(map(abs, apart)) or 1.0
    image = axes.pcolormesh(
        ticks, ticks, rows, cmap="RdBu_r", vmin=-bound, vmax=bound, rasterized=True
    )
    for number, region in enumerate(report.regions):
        _ray(axes, region.start)
        middle = radians(region.start + region.width / 2)
        axes.text(1.7 * cos(middle), 1.7 * sin(middle), str(number), ha="center", va="center",
                  color=plots.INK, fontsize=11, fontweight="bold")  # fmt: skip
    axes.plot([-_REACH, _REACH], [-_REACH, _REACH], color=plots.INK, linewidth=1.0,
              linestyle="--", label="the numbers are equal")  # fmt: skip
    axes.set(xlim=(-_REACH, _REACH), ylim=(-_REACH, _REACH), aspect="equal")
    axes.set_xlabel("first number", color=plots.FAINT)
    axes.set_ylabel("second number", color=plots.FAINT)
    axes.set_title(f"{len(report.regions)} linear regions", loc="left", color=plots.INK,
                   fontsize=11, fontweight="bold", pad=12)  # fmt: skip
    axes.tick_params(colors=plots.INK, length=0, labelsize=9)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    figure.colorbar(image, ax=axes, aspect=30).set_label(
        "logit of the second less that of the first", color=plots.FAINT
    )
    return figure


def _ray(axes: Axes, angle: float) -> None:
    """Draw a border from the origin to beyond the picture's edge."""
    far = 2 * _REACH
    axes.plot([0, far * cos(radians(angle))], [0, far * sin(radians(angle))], color=plots.INK,
              linewidth=0.9)  # fmt: skip
