"""Everything that is told about one of AlgZoo's networks, in one value."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from typing import Any

from mi_ref._typing import Array
from mi_ref.algzoo import pictures, report_record, report_tables
from mi_ref.algzoo.ablation import ablate
from mi_ref.algzoo.activation_patterns import count_patterns
from mi_ref.algzoo.attention import Attention
from mi_ref.algzoo.findings import Findings
from mi_ref.algzoo.networks import Network
from mi_ref.algzoo.plane import regions
from mi_ref.algzoo.probing import probe
from mi_ref.algzoo.rnn import Rnn
from mi_ref.algzoo.scores import score, surprise
from mi_ref.algzoo.standard_form import standardise
from mi_ref.algzoo.tasks import TASKS, Task
from mi_ref.algzoo.weight_files import BUNDLED
from mi_ref.errors import ConfigError, ShapeError, WeightError
from mi_ref.output.result import Result
from mi_ref.output.tables import Table


@dataclass(frozen=True, slots=True, repr=False)
class AlgZooReport(Findings, Result):
    """How well a network answers, and what it does; what it holds is told at `Findings`."""

    def table(self) -> Table:
        """Return how well it answers."""
        return report_tables.summary(self)

    def tables(self) -> list[Table]:
        """Return everything: answers, weights, parts, roles and regions."""
        return report_tables.all_tables(self)

    def print(self) -> None:
        """Print every table."""
        for number, table in enumerate(self.tables()):
            if number:
                sys.stdout.write("\n")
            table.print()

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    def _repr_html_(self) -> str:
        return "".join(table.html() for table in self.tables())

    def conclusion(self) -> str:
        """Return what it comes to, in a sentence."""
        return report_tables.conclusion(self)

    def record(self) -> dict[str, Any]:
        """Return everything, the weights too; maps of regions in floats."""
        return report_record.record(self)

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw what tells most: the plane's regions, else an RNN's weights, or the attention."""
        pictures.plot(self, path)


def report(
    network: Network,
    task: str | Task | None = None,
    *,
    n: int | None = None,
    samples: int = 10_000,
    seed: int = 0,
) -> AlgZooReport:
    """Return everything that is told about a network: see `AlgZooReport`.

    Parameters
    ----------
    network : Network
        From `load`, or made from arrays.
    task : str, Task or None
        A name in `TASKS`; None for a bundled network's own.
    n : int or None
        Numbers per input; None for as many as it has answers, which the median does not say.
    samples : int
        Inputs to draw; functions are taken one by one if there are no more.
    seed : int
        Seed of the draw.

    Raises
    ------
    ConfigError
        If no task is named, the name is unknown, or the network does not read its inputs.
    ShapeError
        If the network's answers are not the task's, or there are no samples.
    """
    asked = _task(network, task)
    count = _numbers(network, asked, n)
    if samples < 2:
        raise ShapeError(f"samples={samples}: pass two or more.")
    x = asked.draw(network, count, samples, seed)
    common: dict[str, Any] = {
        "network": network,
        "task": asked,
        "n": count,
        "seed": None if asked.exhaustive(count, samples) else seed,
        "score": score(network, asked, x),
        "surprise": surprise(network, asked, x),
        "cuts": ablate(network, asked, x),
    }
    if isinstance(network, Attention):
        return AlgZooReport(**common, attention=_looks(network, x))
    if not isinstance(network, Rnn):
        return AlgZooReport(**common)
    return AlgZooReport(
        **common,
        standard=_standard(network),
        roles=probe(network, x),
        patterns=count_patterns(network, x),
        regions=regions(network) if count == 2 else (),
    )


def _looks(network: Attention, x: Array) -> tuple[tuple[tuple[float, ...], ...], ...]:
    mean = network.backend.xp.mean(network.trace(x), axis=0)
    return tuple(tuple(map(tuple, layer)) for layer in network.backend.to_host(mean).tolist())


def _task(network: Network, task: str | Task | None) -> Task:
    name = network.source.name if network.source else ""
    asked = BUNDLED.get(name) if task is None else task
    if isinstance(asked, str) and asked not in TASKS:
        raise ConfigError(f"there is no task {asked!r}; pass one of {', '.join(TASKS)}.")
    if asked is None:
        raise ConfigError(
            f"{name or 'this network'} does not say what it was trained for: pass task=, one of"
            f" {', '.join(TASKS)}."
        )
    found = TASKS[asked] if isinstance(asked, str) else asked
    if found.functions != isinstance(network, Attention):
        reads = "whole numbers" if isinstance(network, Attention) else "numbers"
        raise ConfigError(f"{found.name} is not a task of {network!r}, which reads {reads}.")
    return found


def _numbers(network: Network, task: Task, n: int | None) -> int:
    if n is None and not task.classes:
        raise ConfigError(f"{task.name} has one answer for any count of numbers: pass n=.")
    found = network.n_answers if n is None else n
    if found < 1:
        raise ShapeError(f"n={found}: pass how many numbers an input has.")
    return found


def _standard(network: Rnn) -> Rnn | None:
    try:
        return standardise(network)
    except WeightError:
        return None
