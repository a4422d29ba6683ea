"""AlgZoo's RNN: ``h = relu(W_ih x + W_hh h)`` for one number after the other, then ``W_oh h``."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from mi_ref._typing import Array, Float
from mi_ref.algzoo import weight_shapes
from mi_ref.algzoo.networks import Network
from mi_ref.errors import ShapeError, WeightError


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Rnn(Network):
    """Relu neurons that start at zero, without biases.

    Raises
    ------
    WeightError
        If the weights do not fit one another.
    """

    W_ih: Float[Array, " neuron"]
    W_hh: Float[Array, "to_neuron from_neuron"]
    W_oh: Float[Array, "answer neuron"]

    def __post_init__(self) -> None:
        if self.W_ih.ndim != 1:
            raise WeightError(
                f"W_ih is {tuple(self.W_ih.shape)}; pass one weight per neuron, W_ih[:, 0] of a"
                " column as files have it."
            )
        self._check(weight_shapes.RNN)

    @property
    def weights(self) -> dict[str, Array]:
        """Every weight, by the name that AlgZoo's files give it."""
        column = self.W_ih[:, None]  # [neuron] -> [neuron, 1]
        return dict(zip(weight_shapes.RNN, (column, self.W_hh, self.W_oh), strict=True))

    @property
    def parts(self) -> tuple[str, ...]:
        """Its neurons."""
        return tuple(f"neuron {neuron}" for neuron in range(self.W_hh.shape[0]))

    @property
    def n_answers(self) -> int:
        """How many logits; 1 where the answer is a number."""
        return int(self.W_oh.shape[0])

    def logits(self, x: Array, silent: Collection[int] = ()) -> Float[Array, "input answer"]:
        """Return the answers; see `Network.logits`."""
        return self.backend.ops.linear(self.hidden(x, silent), self.W_oh, None)

    def hidden(self, x: Array, silent: Collection[int] = ()) -> Float[Array, "input neuron"]:
        """Return what each neuron holds after the last number."""
        return self._steps(x, silent)[1]

    def trace(self, x: Array, silent: Collection[int] = ()) -> Float[Array, "input step neuron"]:
        """Return what goes into each neuron's relu at each step."""
        return self.backend.xp.stack(self._steps(x, silent)[0], axis=1)

    def _steps(self, x: Array, silent: Collection[int]) -> tuple[list[Array], Array]:
        xp, ops, device = self.backend.xp, self.backend.ops, self.backend.device
        numbers = xp.asarray(x, dtype=self.dtype, device=device)
        if numbers.ndim != 2 or 0 in numbers.shape:
            raise ShapeError(
                f"an RNN reads numbers [input, step], one or more of each, not"
                f" {tuple(numbers.shape)}."
            )
        kept, before = self._kept(silent), list[Array]()
        h = xp.zeros((numbers.shape[0], len(self.parts)), dtype=self.dtype, device=device)
        for step in range(numbers.shape[1]):
            before.append(numbers[:, step][:, None] * self.W_ih + ops.linear(h, self.W_hh, None))
            h = ops.activation(before[-1], "relu") * kept
        return before, h
