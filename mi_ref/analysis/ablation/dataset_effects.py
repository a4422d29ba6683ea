"""Effects of ablations on many prompts: means, how well they are known, and every number."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import Any

from mi_ref.analysis.ablation.effects import Shown, draw, name, part_name
from mi_ref.analysis.ablation.parts import Method, What
from mi_ref.errors import ShapeError
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, fixed


@dataclass(frozen=True, slots=True)
class Spread:
    """A mean over prompts, and how well it is known."""

    mean: float
    error: float
    """Standard error of the mean: the standard deviation over prompts by the root of their
    number."""


@dataclass(frozen=True, slots=True)
class PartEffects:
    """What ablating one part does to each prompt."""

    layer: int
    index: int | None
    """Number of the head or neuron; None for whole parts."""
    kls: tuple[float, ...]
    """``KL(intact ‖ ablated)`` in nats, by prompt; the mean over draws."""
    changes: tuple[float, ...] | None
    """Changes of the logit difference, ablated less intact, by prompt; None without targets."""

    @property
    def kl(self) -> Spread:
        """Over prompts."""
        return _spread(self.kls)

    @property
    def change(self) -> Spread | None:
        """Over prompts."""
        return None if self.changes is None else _spread(self.changes)


@dataclass(frozen=True, slots=True, repr=False)
class DatasetAblation(Result):
    """Effects of ablating parts one at a time, on each of several prompts.

    Attributes
    ----------
    effects : tuple of PartEffects
        By layer, then head or neuron.
    what, method : str
        What was ablated, and how.
    targets, others : tuple of int, or None
        ``logit(target) - logit(other)`` is followed, by prompt; without others,
        ``logit(target)``.
    intact : tuple of float, or None
        The same of the intact model.
    positions : tuple of int
        Where each prompt's prediction is read, from the front.
    ablated : tuple of tuple of int
        At which positions of each prompt the parts are ablated.
    partners : tuple of tuple of int
        When resampling, the prompts whose activations each one got, one for each draw; else empty.
    seed : int or None
        Seed of the draws.
    tokens : tuple of tuple of int
        Tokens of the prompts.
    origin : Origin
        The model, without its weights.
    """

    effects: tuple[PartEffects, ...]
    what: What
    method: Method
    targets: tuple[int, ...] | None
    others: tuple[int, ...] | None
    intact: tuple[float, ...] | None
    positions: tuple[int, ...]
    ablated: tuple[tuple[int, ...], ...]
    partners: tuple[tuple[int, ...], ...]
    seed: int | None
    tokens: tuple[tuple[int, ...], ...]
    origin: Origin = field(compare=False)

    def top(self, k: int = 10) -> list[PartEffects]:
        """Return the `k` parts whose ablation moves predictions most, by mean KL."""
        return sorted(self.effects, key=lambda effect: -effect.kl.mean)[:k]

    def table(self, k: int = 15) -> Table:
        """Return the `k` parts that matter most on average."""
        heads = [self.what, ">mean KL", ">± s.e."]
        heads += [] if self.targets is None else [">logit change", ">± s.e."]
        table = Table(heads, f"{self.method} ablation over {len(self.tokens)} prompts")
        for effect in self.top(k):
            cells = [fixed(effect.kl.mean, 4), fixed(effect.kl.error, 4)]
            if effect.change is not None:
                cells += [fixed(effect.change.mean, 3, "+"), fixed(effect.change.error, 3)]
            table.add(name(effect.layer, effect.index), *cells)
        return table

    def summary(self) -> str:
        """Return which part matters most on average, as a sentence."""
        most = self.top(1)[0]
        named = part_name(self.what, most.layer, most.index)
        return (
            f"Over {len(self.tokens)} prompts predictions move most without {named}: KL"
            f" {most.kl.mean:.4f} ± {most.kl.error:.4f} nats."
        )

    def record(self) -> dict[str, Any]:
        """Return every number of every prompt, means and errors, and what was drawn."""
        return record_of(
            self,
            "dataset_ablation",
            self.tokens,
            seed=self.seed,
            what=self.what,
            method=self.method,
            targets=self.targets,
            others=self.others,
            intact_logit_differences=self.intact,
            positions=self.positions,
            ablated_positions=self.ablated,
            partners=self.partners,
            effects=[
                {
                    **asdict(effect),
                    "kl": asdict(effect.kl),
                    "change": None if effect.change is None else asdict(effect.change),
                }
                for effect in self.effects
            ],
        )

    def plot(self, path: str | os.PathLike[str], metric: Shown = "kl") -> None:
        """Draw layers by heads or neurons: mean KL, or mean change of the logit difference."""
        if metric == "logit_difference" and self.targets is None:
            raise ShapeError("nothing was followed: call dataset_ablation(..., targets=) for that.")
        spreads = ((e, e.kl if metric == "kl" else e.change) for e in self.effects)
        draw(
            path,
            {(e.layer, e.index): spread.mean for e, spread in spreads if spread is not None},
            what=self.what,
            title=f"{self.method} ablation, mean over {len(self.tokens)} prompts",
            metric=metric,
        )


def _spread(values: Sequence[float]) -> Spread:
    """Return mean and standard error of two numbers or more."""
    mean, n = fmean(values), len(values)
    return Spread(mean, math.sqrt(sum((x - mean) ** 2 for x in values) / (n - 1) / n))
