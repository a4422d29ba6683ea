"""How well a network answers, and how many bits about the answers its weights hold."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from mi_ref._typing import Array
from mi_ref.algzoo.networks import Network
from mi_ref.algzoo.tasks import Task
from mi_ref.analysis.measure.distributions import log_softmax
from mi_ref.errors import ShapeError

WEIGHT_BITS = 32
"""Bits of one weight as AlgZoo stores it."""


@dataclass(frozen=True, slots=True)
class ClassScore:
    """The score of answers that are classes."""

    count: int
    """Inputs."""
    right: int
    """Inputs whose largest logit is the right class's; of equal ones the first counts."""
    surprise: float
    """Mean of ``-log2 p(right class)``, in bits."""

    @property
    def quality(self) -> float:
        """Share of right answers."""
        return self.right / self.count


@dataclass(frozen=True, slots=True)
class ValueScore:
    """The score of answers that are numbers."""

    count: int
    """Inputs."""
    error: float
    """Mean square of what answers are off."""
    variance: float
    """Variance of the right answers: the error of always answering their mean."""

    @property
    def quality(self) -> float:
        """Share of the variance that the network explains; below 0 if its mean does better."""
        return 1.0 - self.error / self.variance


@dataclass(frozen=True, slots=True)
class Surprise:
    """What the labels of N inputs cost, in bits: surprise accounting.

    A network that knows nothing needs as many as guessing does; each bit less is one that its
    weights explain. Confident errors cost more than guessing.
    """

    count: int
    guessing: float
    """Bits of all labels if every class is equally likely: ``N log2(classes)``."""
    frequencies: float
    """Bits of all labels if only their frequencies are known: N times their entropy."""
    network: float
    """Bits of all labels under the network's probabilities."""
    n_weights: int

    @property
    def explained(self) -> float:
        """Bits that the network saves over guessing."""
        return self.guessing - self.network

    @property
    def per_weight(self) -> float:
        """Bits explained by each weight."""
        return self.explained / self.n_weights

    @property
    def break_even(self) -> float:
        """Labels from which on they and the weights, at 32 bits each, are shorter than guesses."""
        saved = self.explained / self.count
        return WEIGHT_BITS * self.n_weights / saved if saved > 0 else math.inf


def score(
    network: Network, task: Task, x: Array, silent: Collection[int] = ()
) -> ClassScore | ValueScore:
    """Return how well a network answers, some of its parts silent.

    Raises
    ------
    ShapeError
        If its answers are not those of the task.
    """
    xp, truth = network.backend.xp, task.answers(network, x)
    out = network.logits(x, silent)
    _check(network, task, x)
    if task.classes:
        right = truth[:, None]
        own = xp.take_along_axis(log_softmax(out, xp=xp), right, axis=-1)
        agree = xp.astype(xp.argmax(out, axis=-1) == truth, xp.int64)
        lost = -float(xp.mean(own)) / math.log(2.0)
        return ClassScore(int(out.shape[0]), int(xp.sum(agree)), lost)
    exact, said = (xp.astype(a, xp.float64, copy=False) for a in (truth, out[:, 0]))
    error = float(xp.mean((said - exact) ** 2))
    return ValueScore(int(out.shape[0]), error, float(xp.var(exact)))


def surprise(network: Network, task: Task, x: Array) -> Surprise | None:
    """Return what labels cost with and without the network; None where answers are numbers."""
    found = score(network, task, x)
    if isinstance(found, ValueScore):
        return None
    host = network.backend.to_host
    counts = Counter(host(task.answers(network, x)).tolist()).values()
    return Surprise(
        count=found.count,
        guessing=found.count * math.log2(network.n_answers),
        frequencies=sum(times * math.log2(found.count / times) for times in counts),
        network=found.count * found.surprise,
        n_weights=network.n_weights,
    )


def _check(network: Network, task: Task, x: Array) -> None:
    needed = x.shape[1] if task.classes else 1
    if network.n_answers != needed:
        raise ShapeError(
            f"{task.name} of {x.shape[1]} numbers has {needed} answer(s), but this network gives"
            f" {network.n_answers}. Is it another task's, or for another count of numbers?"
        )
