"""What is found out about one of AlgZoo's networks: the numbers of a report."""

from __future__ import annotations

from dataclasses import dataclass, field

from mi_ref.algzoo.ablation import Cut
from mi_ref.algzoo.activation_patterns import PatternCounts
from mi_ref.algzoo.networks import Network
from mi_ref.algzoo.plane import Region
from mi_ref.algzoo.probing import Role
from mi_ref.algzoo.rnn import Rnn
from mi_ref.algzoo.scores import ClassScore, Surprise, ValueScore
from mi_ref.algzoo.tasks import Task


@dataclass(frozen=True, slots=True, repr=False)
class Findings:
    """How well a network answers, and what it does.

    Attributes
    ----------
    network : Network
        As given.
    task : Task
        What it was asked.
    n : int
        Numbers per input.
    seed : int or None
        Seed of the inputs; None if all inputs were taken.
    score : ClassScore or ValueScore
        The score of its answers.
    surprise : Surprise or None
        In bits; None where answers are numbers.
    cuts : tuple of Cut
        Without each part, and each two.
    standard : Rnn or None
        With input weights of 1 and -1; None of a transformer, or where one is 0.
    roles : tuple of Role
        Roles of an RNN's neurons.
    patterns : PatternCounts or None
        Activation patterns of an RNN.
    regions : tuple of Region
        Linear regions of an RNN that reads two numbers.
    attention : tuple
        Attention of a transformer by layer, query and key, averaged over inputs.
    """

    network: Network = field(compare=False)
    task: Task
    n: int
    seed: int | None
    score: ClassScore | ValueScore
    surprise: Surprise | None
    cuts: tuple[Cut, ...]
    standard: Rnn | None = field(default=None, compare=False)
    roles: tuple[Role, ...] = ()
    patterns: PatternCounts | None = None
    regions: tuple[Region, ...] = ()
    attention: tuple[tuple[tuple[float, ...], ...], ...] = ()
