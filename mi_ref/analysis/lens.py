"""What a lens on the layers shows: a value that prints, plots and saves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import index
from typing import Any

from mi_ref.errors import ShapeError, TokenError
from mi_ref.model import Model
from mi_ref.run import Prediction, Predictions
from mi_ref.tables import Table


@dataclass(frozen=True, slots=True)
class Cell:
    """What one layer predicts to follow one position."""

    top: Predictions
    """The likeliest next tokens."""
    target: Prediction
    """The target token: its rank among all tokens, its logit and its probability."""
    entropy: float
    """Of the prediction, in nats: 0 for certainty, ``log(d_vocab)`` for none at all."""
    kl: float
    """KL(final ‖ this layer) in nats, 0 at the last layer: what is lost by predicting as this
    layer does where the model's output is true."""


@dataclass(frozen=True, slots=True, repr=False)
class LogitLens:
    """Predictions of every layer at some positions of one prompt.

    ``lens[layer, pos]`` is a `Cell`; either index may be negative. Printing gives the table of
    the last position.

    Attributes
    ----------
    prompt : str or None
        The text; None if token ids were given.
    tokens, str_tokens : tuple
        Ids and texts of the prompt's tokens, special ones included.
    positions : tuple of int
        The positions looked at, counted from the front.
    cells : tuple of tuple of Cell
        By layer, then in the order of `positions`.
    model : Model
        What was looked into.
    """

    prompt: str | None
    tokens: tuple[int, ...]
    str_tokens: tuple[str, ...]
    positions: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]
    model: Model = field(compare=False)

    def __getitem__(self, place: tuple[int, int]) -> Cell:
        layer, position = place
        if not -self.n_layers <= layer < self.n_layers:
            raise ShapeError(f"layer {layer}: this lens has layers 0 to {self.n_layers - 1}.")
        return self.cells[layer][self._column(position)]

    @property
    def n_layers(self) -> int:
        """Number of layers, all of which were looked at."""
        return len(self.cells)

    def at_position(self, position: int = -1) -> tuple[Cell, ...]:
        """Return the cells of one position of the prompt, by layer."""
        column = self._column(position)
        return tuple(row[column] for row in self.cells)

    def first_layer(
        self, token: str | int | None = None, *, top: int = 1, position: int = -1
    ) -> int | None:
        """Return the layer from which on a token stays among the `top` likeliest.

        It is so in that layer and in every later one; None if it is not in the last. A token that
        comes, goes and comes back counts from its last coming.

        Parameters
        ----------
        token : str, int or None
            One token, exactly; None for the target.
        top : int
            1 for the first place. For tokens other than the target, no more than the lens kept.
        position : int
            Of the prompt.
        """
        column = self.at_position(position)
        wanted = column[0].target.id if token is None else token_id(self.model, token)
        kept = len(column[0].top)
        if top > kept and wanted != column[0].target.id:
            raise ShapeError(
                f"top={top}, but this lens kept the {kept} likeliest tokens: make it with"
                f" logit_lens(..., top={top}), or with the token as target=."
            )
        for layer in reversed(range(self.n_layers)):
            cell = column[layer]
            near = [p.id for p in (*cell.top.items, cell.target) if p.rank <= top]
            if wanted not in near:
                return layer + 1 if layer + 1 < self.n_layers else None
        return 0

    def table(self, position: int = -1) -> Table:
        """Return one row per layer: its predictions, and the target's way up."""
        from mi_ref.analysis.lens_views import layer_table

        return layer_table(self, position)

    def grid(self, layers: Sequence[int] | None = None) -> Table:
        """Return the likeliest token of each position (rows) at each layer (columns).

        Parameters
        ----------
        layers : sequence of int or None
            Which to show; None for all.
        """
        from mi_ref.analysis.lens_views import token_grid

        return token_grid(self, layers)

    def summary(self, position: int = -1) -> str:
        """Return the target's way through the layers as a sentence."""
        from mi_ref.analysis.lens_views import summary

        return summary(self, position)

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
        from mi_ref.analysis.lens_plot import plot

        plot(self, path)

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON, with what it takes to repeat it."""
        from mi_ref.analysis.lens_views import record

        return record(self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `record` as JSON: whole or not at all."""
        from mi_ref.provenance import write_json

        write_json(path, self.record())

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        return (
            f"<LogitLens of {self.model.source.name}: {self.n_layers} layers ×"
            f" {len(self.positions)} positions; print() shows the last one>"
        )

    def _repr_html_(self) -> str:
        return self.table().html()

    def _column(self, position: int) -> int:
        n_pos = len(self.tokens)
        wanted = position + n_pos if position < 0 else position
        if wanted not in self.positions:
            raise ShapeError(
                f"position {position} is not in this lens, which looked at"
                f" {', '.join(map(str, self.positions))} of {n_pos} positions."
            )
        return self.positions.index(wanted)


def token_id(model: Model, token: str | int) -> int:
    """Return the id of a token given as itself: an id, or a text that is exactly one token.

    Raises
    ------
    TokenError
        If the text is not one token, or the id is out of range.
    """
    if isinstance(token, str):
        return model.to_single_token(token)
    try:
        found = index(token)
    except TypeError:
        found = -1
    if isinstance(token, bool) or not 0 <= found < model.cfg.d_vocab:
        raise TokenError(
            f"token id {token} is out of range: it is a whole number, and d_vocab is"
            f" {model.cfg.d_vocab}."
        )
    return found
