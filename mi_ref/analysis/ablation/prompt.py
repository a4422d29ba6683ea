"""What is lost without a head, an MLP, a layer or a neuron: ablations one at a time.

Each part's output is set to zero, to its mean over reference prompts, or to what it is on another
prompt; the effect is how far the next-token prediction moves. Zero is far from anything that later
layers know; the mean takes away what depends on the prompt and leaves the rest.

Source: Wang et al., arXiv:2211.00593 (mean ablation); Chan et al., "Causal scrubbing" (2022), for
resampling.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Unpack

from mi_ref.analysis.ablation.effects import (
    Shown,
    cells_of,
    draw,
    name,
    over_draws,
    part_name,
    read,
)
from mi_ref.analysis.ablation.parts import Method, What, every_part, replacements
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt, place, places
from mi_ref.analysis.sweeps.sweep import SweepOptions, sweep
from mi_ref.edits.intervention import Places
from mi_ref.errors import ShapeError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, fixed
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True)
class Effect:
    """What ablating one part does, the mean over draws."""

    layer: int
    index: int | None
    """Number of the head or neuron; None for whole parts."""
    kl: float
    """``KL(intact ‖ ablated)`` in nats."""
    logit_difference: float | None
    """The ablated model's logit difference; None if no target was given."""


@dataclass(frozen=True, slots=True, repr=False)
class Ablation(Result):
    """Effects of ablating parts one at a time.

    Attributes
    ----------
    effects : tuple of Effect
        By layer, then head or neuron.
    what, method : str
        What was ablated, and how.
    target, other : int or None
        ``logit(target) - logit(other)`` is measured; without `other`, ``logit(target)``.
    intact : float or None
        That of the intact model.
    position : int
        Where the prediction is read, counted from the front.
    ablated : tuple of int
        At which positions the parts are ablated.
    reference : tuple of tuple of int
        Token ids of the reference prompts; empty for zero ablation.
    draws : tuple of int
        Which of them each draw of a resampling took.
    seed : int or None
        Seed of the draws.
    tokens : tuple of int
        The prompt's.
    origin : Origin
        The model, without its weights.
    """

    effects: tuple[Effect, ...]
    what: What
    method: Method
    target: int | None
    other: int | None
    intact: float | None
    position: int
    ablated: tuple[int, ...]
    reference: tuple[tuple[int, ...], ...]
    draws: tuple[int, ...]
    seed: int | None
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def top(self, k: int = 10) -> list[Effect]:
        """Return the `k` parts whose ablation moves the prediction most, by KL."""
        return sorted(self.effects, key=lambda effect: -effect.kl)[:k]

    def table(self, k: int = 15) -> Table:
        """Return the `k` parts that matter most."""
        heads = [
            f"{self.what}",
            ">KL",
            *([] if self.target is None else [">logit diff", ">change"]),
        ]
        table = Table(heads, f"{self.method} ablation, read at {self.position}")
        for effect in self.top(k):
            cells = [name(effect.layer, effect.index), fixed(effect.kl, 4)]
            if effect.logit_difference is not None and self.intact is not None:
                change = effect.logit_difference - self.intact
                cells += [fixed(effect.logit_difference, 3), fixed(change, 3, "+")]
            table.add(*cells)
        return table

    def summary(self) -> str:
        """Return which part matters most, as a sentence."""
        most = self.top(1)[0]
        named = part_name(self.what, most.layer, most.index)
        said = f"The prediction moves most without {named}: KL {most.kl:.4f} nats"
        if self.intact is None or most.logit_difference is None:
            return f"{said}."
        ids = [n for n in (self.target, self.other) if n is not None]
        tokens = " − ".join(repr(self.origin.token_string(n)) for n in ids)
        return f"{said}, logit {tokens} from {self.intact:.3f} to {most.logit_difference:.3f}."

    def record(self) -> dict[str, Any]:
        """Return every number, the reference prompts and the draws."""
        return record_of(
            self,
            "ablation",
            self.tokens,
            seed=self.seed,
            what=self.what,
            method=self.method,
            target=self.target,
            other=self.other,
            intact_logit_difference=self.intact,
            position=self.position,
            ablated_positions=list(self.ablated),
            reference=self.reference,
            draws=list(self.draws),
            effects=[asdict(effect) for effect in self.effects],
        )

    def plot(self, path: str | os.PathLike[str], metric: Shown = "kl") -> None:
        """Draw layers by heads or neurons: KL, or the change of the logit difference."""
        if metric == "logit_difference" and self.intact is None:
            raise ShapeError("no target was followed: call ablation(..., target=) for that.")
        draw(
            path,
            {(e.layer, e.index): self._shown(e, metric) for e in self.effects},
            what=self.what,
            title=f"{self.method} ablation",
            metric=metric,
        )

    def _shown(self, effect: Effect, metric: Shown) -> float:
        if metric == "kl":
            return effect.kl
        assert effect.logit_difference is not None
        assert self.intact is not None
        return effect.logit_difference - self.intact


def ablation(
    model: Model,
    prompt: Prompt,
    *,
    what: What = "head",
    method: Method = "zero",
    reference: Sequence[str] | Sequence[Sequence[int]] = (),
    target: str | int | None = None,
    other: str | int | None = None,
    layers: Places = None,
    indices: Places = None,
    positions: Places = None,
    position: int = -1,
    draws: int = 1,
    seed: int = 0,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> Ablation:
    """Ablate parts one at a time and measure what that does to the next token.

    Parameters
    ----------
    model : Model
        What to look into.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    what : {"head", "attn", "mlp", "layer", "neuron"}
        Heads (``at.z``, of recurrent models ``at.rwkv_wkv``), what attention or time mixing adds,
        what MLPs add, both, or neurons.
    method : {"zero", "mean", "resample"}
        Mean: over all tokens of all `reference` prompts. Resample: what the part is, position by
        position, on one of the `reference` prompts, which then have as many tokens as the prompt.
    reference : sequence of str, or of sequence of int
        Prompts for mean and resample.
    target, other : str, int or None
        Tokens whose logit difference to follow; without `other`, the target's logit.
    layers, indices : Places
        Which layers, and which heads or neurons of each; None for all.
    positions : Places
        Where to ablate; None is everywhere.
    position : int
        Where to read the prediction.
    draws, seed : int
        For resampling: how many reference prompts to draw, and the seed.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweeps.sweep.sweep`: ``rows``, ``executor``, ``resume``.

    Raises
    ------
    HookError
        If the model has no such parts.
    ShapeError
        If a position lies outside, reference prompts are missing, or lengths differ.
    SweepError
        If the file to resume from is another sweep's.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    where = place(position, len(ids), "position")
    ablated = places(positions, len(ids), "positions")
    parts = every_part(model, what, layers, indices)
    refs, values, drawn = replacements(
        model, ids, parts, method, reference, draws=draws, seed=seed, prepend_bos=prepend_bos
    )
    reading = read(model, ids, where, target, other)
    cells = cells_of(parts, values, ablated)
    found = sweep(model, list(ids), cells, reading.metrics, position=where, **options)
    means = over_draws(found.values, len(values))
    return Ablation(
        effects=tuple(
            Effect(part.layer, part.index, kl, followed[0] if followed else None)
            for part, (kl, *followed) in zip(parts, means, strict=True)
        ),
        what=what,
        method=method,
        target=reading.tokens[0],
        other=reading.tokens[1],
        intact=reading.intact,
        position=where,
        ablated=ablated,
        reference=refs,
        draws=drawn,
        seed=whole(seed, "seed") if method == "resample" else None,
        tokens=ids,
        origin=model.origin,
    )
