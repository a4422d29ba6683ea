"""What a lens on the layers shows: a value that prints, plots and saves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mi_ref.analysis.lens import plot as lens_plot, views as lens_views
from mi_ref.analysis.lens.cells import Cell as Cell, LensCells
from mi_ref.output.result import Result, encoded
from mi_ref.output.tables import Table


@dataclass(frozen=True, slots=True, repr=False)
class LogitLens(LensCells, Result):
    """Predictions of every layer at some positions of one prompt.

    ``lens[layer, pos]`` is a `Cell`; either index may be negative. Printing gives the table of
    the last position. What it holds is told at `LensCells`.
    """

    def table(self, position: int = -1) -> Table:
        """Return one row per layer: its predictions, and the target's way up."""
        return lens_views.layer_table(self, position)

    def grid(self, layers: Sequence[int] | None = None) -> Table:
        """Return the likeliest token of each position (rows) at each layer (columns).

        Parameters
        ----------
        layers : sequence of int or None
            Which to show; None for all.
        """
        return lens_views.token_grid(self, layers)

    def summary(self, position: int = -1) -> str:
        """Return the target's way through the layers as a sentence."""
        return lens_views.summary(self, position)

    def print(self, position: int = -1) -> None:
        """Print the table of one position."""
        self.table(position).print()

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw a heat map of layers over positions: the likeliest tokens, and how likely.

        Parameters
        ----------
        path : str or path
            A ``.png``, ``.svg`` or ``.pdf`` file to write.

        Raises
        ------
        ModuleNotFoundError
            If matplotlib is missing.
        """
        lens_plot.plot(self, path)

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON, with what it takes to repeat it."""
        return {**lens_views.record(self), "value": encoded(self)}

    def __repr__(self) -> str:
        return (
            f"<LogitLens of {self.origin.name}: {self.n_layers} layers ×"
            f" {len(self.positions)} positions; print() shows the last one>"
        )
