"""What AlgZoo's two kinds of networks, `Rnn` and `Attention`, have in common.

Source: Hilton, AlgZoo: uninterpreted models with fewer than 1,500 parameters (2026), alignment.org.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass, field

from mi_ref._typing import Array, DType, Float
from mi_ref.algzoo.weight_shapes import Axes, misfits
from mi_ref.backend import DTYPES, Backend, get_backend
from mi_ref.checkpoints.source import Source
from mi_ref.errors import ShapeError, WeightError


@dataclass(frozen=True, slots=True, eq=False, repr=False, kw_only=True)
class Network(ABC):
    """A network as a frozen value that computes, in the dtype of its weights.

    Attributes
    ----------
    source : Source or None
        The file it was read from; None for a network made from arrays.
    backend : Backend
        What its arrays belong to.
    """

    source: Source | None = None
    backend: Backend = field(default_factory=lambda: get_backend("numpy"))

    @property
    @abstractmethod
    def weights(self) -> dict[str, Array]:
        """Every weight, by the name that AlgZoo's files give it."""

    @property
    @abstractmethod
    def parts(self) -> tuple[str, ...]:
        """What can be silenced: neurons of an RNN, layers of a transformer."""

    @property
    @abstractmethod
    def n_answers(self) -> int:
        """How many logits; 1 where the answer is a number."""

    @abstractmethod
    def logits(self, x: Array, silent: Collection[int] = ()) -> Float[Array, "input answer"]:
        """Return the answers to a batch of inputs ``[input, step]``, arrays or lists.

        Parameters
        ----------
        x : Array or sequence
            Numbers for an RNN, whole numbers for a transformer.
        silent : collection of int
            Which of `parts` give nothing but zeros.

        Raises
        ------
        ShapeError
            If `x` has the wrong shape or dtype, or there is no such part.
        TokenError
            If a transformer has no embedding for a number in `x`.
        """

    @property
    def n_weights(self) -> int:
        """How many numbers it is made of."""
        return sum(math.prod(weight.shape) for weight in self.weights.values())

    @property
    def dtype(self) -> DType:
        """What it computes in."""
        return next(iter(self.weights.values())).dtype

    def __repr__(self) -> str:
        name = f" {self.source.name}" if self.source else ""
        parts = f"{len(self.parts)} {self.parts[0].partition(' ')[0]}s"
        return f"<{type(self).__name__}{name}: {parts}, {self.n_weights} weights>"

    def _check(self, axes: Axes) -> None:
        """Refuse weights that do not fit one another, or that nothing computes in."""
        weights = self.weights
        wrong = misfits(axes, {name: tuple(weight.shape) for name, weight in weights.items()})
        dtypes = sorted({str(weight.dtype).rpartition(".")[2] for weight in weights.values()})
        if len(dtypes) > 1 or dtypes[0] not in DTYPES:
            wrong.append(f"they are of {' and '.join(dtypes)}, not all {' or '.join(DTYPES)}")
        if wrong:
            raise WeightError(f"these weights make no {type(self).__name__}: {'; '.join(wrong)}.")

    def _kept(self, silent: Collection[int]) -> Float[Array, " part"]:
        """Return 0 for each silent part and 1 for the others."""
        if wrong := [part for part in silent if not 0 <= part < len(self.parts)]:
            raise ShapeError(
                f"silent={wrong}: this network has {self.parts[0]} to {self.parts[-1]}."
            )
        kept = [0.0 if part in silent else 1.0 for part in range(len(self.parts))]
        return self.backend.xp.asarray(kept, dtype=self.dtype, device=self.backend.device)
