"""What every layer predicts at some positions: the numbers of a lens, apart from how they look."""

from __future__ import annotations

from dataclasses import dataclass, field

from mi_ref.errors import ShapeError
from mi_ref.output.origin import Origin
from mi_ref.run import Prediction, Predictions


@dataclass(frozen=True, slots=True)
class Cell:
    """What one layer predicts to follow one position."""

    top: Predictions
    """The likeliest next tokens."""
    target: Prediction
    """The target token: its rank among all tokens, its logit and its probability."""
    entropy: float
    """Entropy of the prediction in nats: 0 for certainty, ``log(d_vocab)`` for a uniform one."""
    kl: float
    """KL(final ‖ this layer) in nats, 0 at the last layer: what is lost by predicting as this
    layer does where the model's output is true."""


@dataclass(frozen=True, slots=True, repr=False)
class LensCells:
    """Predictions of every layer at some positions of one prompt.

    ``cells[layer, pos]`` is a `Cell`; either index may be negative.

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
    origin : Origin
        The model, without its weights.
    """

    prompt: str | None
    tokens: tuple[int, ...]
    str_tokens: tuple[str, ...]
    positions: tuple[int, ...]
    cells: tuple[tuple[Cell, ...], ...]
    origin: Origin = field(compare=False)

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
            A position of the prompt.
        """
        column = self.at_position(position)
        wanted = column[0].target.id if token is None else self.origin.token_id(token)
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

    def _column(self, position: int) -> int:
        n_pos = len(self.tokens)
        wanted = position + n_pos if position < 0 else position
        if wanted not in self.positions:
            raise ShapeError(
                f"position {position} is not in this lens, which looked at"
                f" {', '.join(map(str, self.positions))} of {n_pos} positions."
            )
        return self.positions.index(wanted)
