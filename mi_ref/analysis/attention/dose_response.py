"""What comes of doses of attention: a value that prints, plots, saves and interpolates."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from mi_ref.analysis.attention.looks import listed
from mi_ref.analysis.measure.comparison import Change
from mi_ref.errors import ArgumentError
from mi_ref.output.origin import Origin
from mi_ref.output.plots import curves
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, chance


@dataclass(frozen=True, slots=True)
class AttentionDose:
    """What one dose did."""

    dose: float
    """The factor that the weight was multiplied with, or the weight that was set."""
    attention: float
    """Weight of the edge after it, as a mean over heads."""
    kl: float
    """``KL(before ‖ after)`` of the next token, in nats."""
    target: Change


@dataclass(frozen=True, slots=True, repr=False)
class AttentionDoseResponse(Result):
    """The next token by dose.

    Attributes
    ----------
    how : {"scale", "set"}
        What a dose is: a factor or a weight.
    doses : tuple of AttentionDose
        Smallest first.
    baseline : float
        Weight of the edge as it is, as a mean over heads.
    layer, query, key : int
        The edge.
    heads : tuple of int
        Whose.
    position : int
        Whose next token was compared.
    tokens : tuple of int
        The prompt's.
    """

    how: Literal["scale", "set"]
    doses: tuple[AttentionDose, ...]
    baseline: float
    layer: int
    query: int
    key: int
    heads: tuple[int, ...]
    position: int
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def dose_for(
        self, value: float, of: Literal["attention", "kl", "probability"] = "attention"
    ) -> float | None:
        """Return the dose at which a quantity reaches `value`, straight between measured doses.

        The smallest if there are several; None if it is never reached. ``"probability"`` is the
        target's.
        """
        if of not in ("attention", "kl", "probability"):
            raise ArgumentError(f"of={of!r}: expected 'attention', 'kl' or 'probability'.")
        return crossing([d.dose for d in self.doses], self._values(of), value)

    def table(self) -> Table:
        """Return one row per dose."""
        token = self.doses[0].target
        heads = listed(self.heads, "heads")
        table = Table(
            [f">{self._dose_name()}", ">attention", ">KL", f">p({token.token!r})", ">logit change"],
            f"edge {self.query} → {self.key}, layer {self.layer}, {heads}: weight"
            f" {chance(self.baseline)} as it is",
        )
        for d in self.doses:
            table.add(
                f"{d.dose:g}",
                chance(d.attention),
                chance(d.kl),
                chance(d.target.after),
                f"{d.target.logit_change:+.3f}",
            )
        return table

    def summary(self) -> str:
        """Return which dose changes the prediction most, as a sentence."""
        most = max(self.doses, key=lambda dose: dose.kl)
        what = f"The weight times {most.dose:g}" if self.how == "scale" else f"Weight {most.dose:g}"
        return f"{what} changes most, KL {chance(most.kl)} nats: {most.target.course()}."

    def record(self) -> dict[str, Any]:
        """Return every dose."""
        return record_of(
            self,
            "attention_dose_response",
            self.tokens,
            units={"kl": "nats, KL(before || after)", "logit_change": "after - before"},
            how=self.how,
            baseline=self.baseline,
            layer=self.layer,
            query=self.query,
            key=self.key,
            heads=list(self.heads),
            position=self.position,
            doses=[asdict(d) for d in self.doses],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the edge's weight, the target's probability and KL over the doses."""
        target = self.doses[0].target.token
        curves(
            path,
            [d.dose for d in self.doses],
            {
                "weight of the edge": self._values("attention"),
                f"probability of {target!r}": self._values("probability"),
                "KL in nats": self._values("kl"),
            },
            title=f"Edge {self.query} → {self.key} in layer {self.layer}",
            x_label=self._dose_name(),
            y_label="after the dose",
        )

    def _values(self, of: str) -> list[float]:
        return [d.target.after if of == "probability" else getattr(d, of) for d in self.doses]

    def _dose_name(self) -> str:
        return "factor" if self.how == "scale" else "weight set"


def crossing(x: Sequence[float], y: Sequence[float], value: float) -> float | None:
    """Return the first `x` at which straight lines through the points reach `value`.

    `x` increases; None if `value` is not reached.
    """
    if value in y[:1]:
        return x[0]
    for before in range(len(x) - 1):
        low, high = y[before], y[before + 1]
        if min(low, high) <= value <= max(low, high):
            return x[before] + (value - low) / (high - low) * (x[before + 1] - x[before])
    return None
