"""What adding a steering vector does to a prediction, at every strength.

Source: Turner et al. 2023, arXiv:2308.10248; strengths as in candle-mi.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_ref.analysis.arguments.numbers import finite
from mi_ref.analysis.arguments.prompts import one_prompt, places
from mi_ref.analysis.measure.next_token import Outcome, baseline
from mi_ref.analysis.steering.vector import SteeringVector
from mi_ref.edits.intervention import Places
from mi_ref.errors import HookError, ShapeError
from mi_ref.hooks.points import GlobalSite, LayerPoint
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.progress import tracked
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, chance
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True, repr=False)
class DoseResponse(Result):
    """What adding a steering vector does at several strengths.

    Attributes
    ----------
    scales : tuple of float
        What the vector was multiplied with.
    outcomes : tuple of Outcome
        For each scale: the target's probability, and KL(unsteered ‖ steered) in nats.
    unsteered : float
        The target's probability without steering.
    target, target_token : int, str
        The token followed.
    point : LayerPoint or GlobalSite
        Where the vector was added.
    positions : tuple of int or None
        To which positions; None for all.
    tokens : tuple of int
        The prompt's.
    """

    scales: tuple[float, ...]
    outcomes: tuple[Outcome, ...]
    unsteered: float
    target: int
    target_token: str
    point: LayerPoint | GlobalSite
    positions: tuple[int, ...] | None
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per strength."""
        title = f"{self.target_token!r} without steering: {chance(self.unsteered)}"
        table = Table([">scale", ">p(target)", ">KL"], title)
        for scale, each in zip(self.scales, self.outcomes, strict=True):
            table.add(f"{scale:g}", chance(each.probability), f"{each.kl:.4f}")
        return table

    def summary(self) -> str:
        """Return which dose moves the target most, as a sentence."""
        doses = zip(self.scales, self.outcomes, strict=True)
        scale, most = max(doses, key=lambda dose: abs(dose[1].probability - self.unsteered))
        return (
            f"{scale:g} times the vector moves {self.target_token!r} most: from"
            f" {chance(self.unsteered)} to {chance(most.probability)}, KL {most.kl:.4f} nats."
        )

    def record(self) -> dict[str, Any]:
        """Return everything but the vector."""
        return record_of(
            self,
            "dose_response",
            self.tokens,
            units={"kl": "nats, KL(unsteered || steered)"},
            point=str(self.point),
            positions=None if self.positions is None else list(self.positions),
            target={"id": self.target, "token": self.target_token, "unsteered": self.unsteered},
            doses=[
                {"scale": scale, "probability": each.probability, "kl": each.kl}
                for scale, each in zip(self.scales, self.outcomes, strict=True)
            ],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the target's probability over the strength."""
        from mi_ref.output.plots import curves

        doses = sorted([(0.0, self.unsteered), *zip(self.scales, self._chances(), strict=True)])
        name = f"p({self.target_token!r})"
        curves(path, [scale for scale, _ in doses], {name: [p for _, p in doses]},
               title=f"Steering at {self.point!r}", x_label="times the vector",
               y_label=name)  # fmt: skip

    def _chances(self) -> list[float]:
        return [each.probability for each in self.outcomes]


def dose_response(
    model: Model,
    prompt: Prompt,
    vector: SteeringVector,
    scales: Sequence[float] = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0),
    *,
    target: str | int | None = None,
    positions: Places = None,
    prepend_bos: bool | None = None,
) -> DoseResponse:
    """Add a steering vector at several strengths and see what the model then predicts.

    Parameters
    ----------
    model : Model
        The one that the vector is of.
    prompt : str, sequence of int, or Array
        One prompt.
    vector : SteeringVector
        What to add, where it was read.
    scales : sequence of float
        Strengths; negative ones steer away.
    target : str, int or None
        The token to follow; None for the likeliest without steering.
    positions : Places
        Where to add it; None for every position.
    prepend_bos : bool or None
        As for `Model.run`.
    """
    if not vector.origin.same_model(model.origin):
        raise ShapeError(f"the vector is of {vector.origin.name}, not of this model.")
    strengths = finite(scales, "scales")
    if not strengths:
        raise ShapeError("scales is empty: name at least one strength.")
    tokens = one_prompt(model, prompt, prepend_bos)
    clean = model.run(tokens, logits="last")
    base = baseline(clean, target)
    where = None if positions is None else _positions(vector, positions, len(tokens))
    outcomes = [
        base.outcome(model.run(tokens, logits="last", edits=[vector.edit(s, positions=where)]))
        for s in tracked(strengths, "doses")
    ]
    return DoseResponse(
        scales=tuple(strengths),
        outcomes=tuple(outcomes),
        unsteered=base.outcome(clean).probability,
        target=base.target,
        target_token=base.token,
        point=vector.point,
        positions=where,
        tokens=tokens,
        origin=model.origin,
    )


def _positions(vector: SteeringVector, positions: Places, n_pos: int) -> tuple[int, ...]:
    try:
        return places(positions, n_pos, "positions")
    except ShapeError as error:
        raise HookError(f"at {vector.point!r}: {error}") from None
