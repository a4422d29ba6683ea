"""Whether a push on the residual stream dies out, or sends the model another way.

At each layer in turn, the difference between a prompt's residual stream and a contrasting one's is
added to the prompt's own, so that it is more of what it was. The cosine of every later layer's
stream to the natural one tells whether the push is absorbed; the strength at which it no longer is
tells how deep the groove is that the model runs in.

Source: candle-mi's example `steering_convergence`. There a push counts as absorbed at the first
later layer above the threshold, even if it leaves again; here it has to stay. A push that never
left is marked by its own cosine at the layer of the push.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mi_ref import do
from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.numbers import finite
from mi_ref.analysis.arguments.prompts import PromptPair, place, read_pair
from mi_ref.analysis.measure.next_token import Baseline, Outcome, baseline
from mi_ref.errors import ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.progress import tracked
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, chance
from mi_ref.run import Run
from mi_ref.text.prompt import Prompt

STRENGTHS = (0.5, 1.0, 2.0, 3.0, 4.0, 6.0)
"""Multiples of the difference that are tried at one layer."""


@dataclass(frozen=True, slots=True)
class Push:
    """One run with the difference added at one layer."""

    layer: int
    strength: float
    cosines: tuple[float, ...]
    """Cosine of each layer's stream with the natural one, at the last position."""
    absorbed: int | None
    """The first later layer from which on the cosine stays at the threshold or above."""
    outcome: Outcome


@dataclass(frozen=True, slots=True, repr=False)
class SteeringConvergence(Result):
    """Which pushes on the residual stream a model absorbs.

    Attributes
    ----------
    pushes : tuple of Push
        At each layer, with strength 1.
    sweep : tuple of Push
        At one layer, with growing strength.
    natural : float
        The target's probability without a push.
    target, target_token : int, str
        The token followed.
    threshold : float
        The cosine at which a push counts as absorbed.
    position : int
        Where the push was given; cosines and predictions are those of the last position.
    prompts : tuple of tuple of int
        The prompt's tokens and the contrasting one's.
    """

    pushes: tuple[Push, ...]
    sweep: tuple[Push, ...]
    natural: float
    target: int
    target_token: str
    threshold: float
    position: int
    prompts: tuple[tuple[int, ...], tuple[int, ...]]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per push: first by layer, then by strength."""
        title = f"{self.target_token!r} without a push: {chance(self.natural)}"
        table = Table(
            [">layer", ">strength", ">cosine there", ">at the end", ">absorbed", ">p(target)",
             ">KL"], title
        )  # fmt: skip
        for each in (*self.pushes, *self.sweep):
            table.add(
                each.layer, f"{each.strength:g}", f"{each.cosines[each.layer]:.4f}",
                f"{each.cosines[-1]:.4f}", "no" if each.absorbed is None else each.absorbed,
                chance(each.outcome.probability), f"{each.outcome.kl:.4f}",
            )  # fmt: skip
        return table

    def summary(self) -> str:
        """Return how many layers absorb the push, and from which strength on none does."""
        absorbing = sum(push.absorbed is not None for push in self.pushes)
        verb = "absorbs" if absorbing == 1 else "absorb"
        said = f"{absorbing} of {len(self.pushes)} layers {verb} the push, to {self.threshold:g}."
        left = [push.strength for push in self.sweep if push.absorbed is None]
        if left:
            said += f" At layer {self.sweep[0].layer} it is not absorbed from {min(left):g} on."
        return said

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return record_of(
            self,
            "steering_convergence",
            self.prompts,
            units={"kl": "nats, KL(natural || pushed)"},
            position=self.position,
            threshold=self.threshold,
            target={"id": self.target, "token": self.target_token, "natural": self.natural},
            pushes=[asdict(each) for each in self.pushes],
            sweep=[asdict(each) for each in self.sweep],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the cosines: layers pushed over layers seen."""
        from mi_ref.output.plots import heat_map

        layers = [str(each.layer) for each in self.pushes]
        heat_map(
            path, [each.cosines for each in self.pushes], rows=layers, columns=layers,
            title="Cosine to the natural residual stream", row_label="pushed after layer",
            column_label="seen after layer", unit="cosine",
        )  # fmt: skip


def steering_convergence(
    model: Model,
    prompt: Prompt,
    contrast: Prompt,
    *,
    target: str | int | None = None,
    position: int = -1,
    threshold: float = 0.95,
    strengths: Sequence[float] = STRENGTHS,
    layer: int | None = None,
    prepend_bos: bool | None = None,
) -> SteeringConvergence:
    """Push a prompt's residual stream away from a contrasting one's, at each layer in turn.

    Parameters
    ----------
    model : Model
        Any; recurrent ones too.
    prompt, contrast : str, sequence of int, or Array
        Two prompts of as many tokens.
    target : str, int or None
        The token to follow; None for the likeliest after `prompt`.
    position : int
        Where to push.
    threshold : float
        A cosine, up to 1.
    strengths : sequence of float
        Multiples of the difference, for the sweep at one layer.
    layer : int or None
        Which layer; None for the deepest that absorbs a push of strength 1, or if none does, the
        one whose push changes the prediction least.
    prepend_bos : bool or None
        As for `Model.run`.
    """
    pair = read_pair(model, prompt, contrast, names=("prompt", "contrast"), prepend_bos=prepend_bos)
    where = place(position, len(pair.first), "position")
    if not -1 <= threshold <= 1:
        raise ShapeError(f"threshold={threshold}: a cosine lies between -1 and 1.")
    doses, n_layers = finite(strengths, "strengths"), model.cfg.n_layers
    lab = _Lab.of(model, pair, where, target, threshold)
    pushes = tuple(lab.push(number, 1.0) for number in tracked(range(n_layers), "pushes"))
    chosen = _telling(pushes) if layer is None else place(layer, n_layers, "layer")
    return SteeringConvergence(
        pushes=pushes,
        sweep=tuple(lab.push(chosen, s) for s in tracked(doses, "strengths")),
        natural=lab.base.outcome(lab.natural).probability,
        target=lab.base.target,
        target_token=lab.base.token,
        threshold=threshold,
        position=where,
        prompts=(pair.first, pair.second),
        origin=model.origin,
    )


@dataclass(frozen=True, slots=True)
class _Lab:
    """The natural run, the differences, and what both are compared by."""

    model: Model
    natural: Run
    base: Baseline
    tokens: tuple[int, ...]
    position: int
    differences: tuple[Float[Array, " d_model"], ...]
    threshold: float

    @classmethod
    def of(
        cls, model: Model, pair: PromptPair, where: int, target: str | int | None, threshold: float
    ) -> _Lab:
        wanted = capture(at.resid_post[:], pos=[where, len(pair.first) - 1])
        natural = model.run(pair.first, capture=[wanted], logits="last")
        other = model.run(pair.second, capture=[capture(at.resid_post[:], pos=where)],
                          logits="none")  # fmt: skip
        points = [at.resid_post[n] for n in range(model.cfg.n_layers)]
        differences = tuple(natural[p][0, 0, :] - other[p][0, 0, :] for p in points)
        base = baseline(natural, target)
        return cls(model, natural, base, pair.first, where, differences, threshold)

    def push(self, layer: int, strength: float) -> Push:
        model = self.model
        edit = do.add(self.differences[layer], scale=strength, positions=self.position)
        run = model.run(
            self.tokens,
            capture=[capture(at.resid_post[:], pos=-1)],
            edits=[(at.resid_post[layer], edit)],
            logits="last",
        )
        cosines = tuple(self._cosine(run, number) for number in range(model.cfg.n_layers))
        absorbed = _absorbed(cosines, layer, self.threshold)
        return Push(layer, strength, cosines, absorbed, self.base.outcome(run))

    def _cosine(self, run: Run, layer: int) -> float:
        xp, host, point = run.backend.xp, run.backend.to_host, at.resid_post[layer]
        a, b = (xp.astype(x[0, -1, :], xp.float64) for x in (run[point], self.natural[point]))
        length = xp.sqrt(xp.sum(a * a) * xp.sum(b * b))
        return float(host(xp.sum(a * b) / length))


def _absorbed(cosines: Sequence[float], layer: int, threshold: float) -> int | None:
    """Return the first layer after `layer` from which on every cosine reaches the threshold."""
    later = range(layer + 1, len(cosines))
    return next((n for n in later if all(c >= threshold for c in cosines[n:])), None)


def _telling(pushes: Sequence[Push]) -> int:
    """Return the layer at which growing strength says most."""
    absorbing = [each.layer for each in pushes if each.absorbed is not None]
    return max(absorbing) if absorbing else min(pushes, key=lambda p: p.outcome.kl).layer
