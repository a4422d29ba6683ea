"""What a network loses with a part silent, and with two: a neuron, or a transformer's layer."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

from mi_ref._typing import Array
from mi_ref.algzoo.networks import Network
from mi_ref.algzoo.scores import ClassScore, ValueScore, score
from mi_ref.algzoo.tasks import Task


@dataclass(frozen=True, slots=True)
class Cut:
    """A network without some of its parts."""

    parts: tuple[int, ...]
    """One or two, as `Network.parts` counts them."""
    score: ClassScore | ValueScore
    """Without them."""
    loss: float
    """Quality that is lost."""
    interaction: float | None
    """The loss of two together less the losses of each alone; None for one."""


def ablate(network: Network, task: Task, x: Array, *, pairs: bool = True) -> tuple[Cut, ...]:
    """Silence each part, then each pair, from the first input step to the last.

    Parameters
    ----------
    network : Network
        Whose parts.
    task : Task
        What the quality is of.
    x : Array
        Inputs ``[input, step]``.
    pairs : bool
        Whether to do pairs too: n parts make ``n (n - 1) / 2`` more runs.
    """
    whole, alone, cuts = score(network, task, x).quality, dict[int, float](), list[Cut]()
    count = len(network.parts)
    wanted = [(part,) for part in range(count)] + (
        list(combinations(range(count), 2)) if pairs else []
    )
    for parts in wanted:
        left = score(network, task, x, parts)
        loss, interaction = whole - left.quality, None
        if len(parts) == 1:
            alone[parts[0]] = loss
        else:
            interaction = loss - sum(alone[part] for part in parts)
        cuts.append(Cut(parts, left, loss, interaction))
    return tuple(cuts)
