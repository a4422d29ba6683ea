"""What is lost without a head, an MLP, a layer or a neuron: ablations one at a time.

Each part's output is set to zero, to its mean over reference prompts, or to what it is on another
prompt; the effect is how far the next-token prediction moves. Zero is far from anything that later
layers know; the mean takes away what depends on the prompt and leaves the rest.

Source: Wang et al., arXiv:2211.00593 (mean ablation); Chan et al., "Causal scrubbing" (2022), for
resampling.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from mi_ref.analysis import plots
from mi_ref.analysis.ablation_parts import (
    Method,
    Part,
    What,
    edits_of,
    every_part,
    replacements,
)
from mi_ref.analysis.comparison import compare
from mi_ref.analysis.lens import token_id
from mi_ref.analysis.residual_parts import one_prompt, places_in
from mi_ref.analysis.result import Result, record_of
from mi_ref.errors import ShapeError
from mi_ref.model import LogitsWanted, Model
from mi_ref.progress import tracked
from mi_ref.run import Run
from mi_ref.tables import Table
from mi_ref.text import Prompt

Metric: TypeAlias = Literal["kl", "logit_difference"]


@dataclass(frozen=True, slots=True)
class Effect:
    """What ablating one part does, the mean over draws."""

    layer: int
    index: int | None
    """Of the head or neuron; None for whole parts."""
    kl: float
    """``KL(intact ‖ ablated)`` in nats."""
    logit_difference: float | None
    """Of the ablated model, in logits; None if no target was given."""


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
        Of the draws.
    tokens : tuple of int
        The prompt's.
    model : Model
        What ran.
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
    model: Model = field(compare=False)

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
            cells = [_name(effect), f"{effect.kl:.4f}"]
            if effect.logit_difference is not None and self.intact is not None:
                shift = effect.logit_difference - self.intact
                cells += [f"{effect.logit_difference:.3f}", f"{shift:+.3f}"]
            table.add(*cells)
        return table

    def record(self) -> dict[str, Any]:
        """Return every number, the reference prompts and the draws."""
        return record_of(
            self.model,
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

    def plot(self, path: str | os.PathLike[str], metric: Metric = "kl") -> None:
        """Draw layers by heads or neurons: KL, or the change of the logit difference."""
        if metric == "logit_difference" and self.intact is None:
            raise ShapeError("no target was followed: call ablation(..., target=) for that.")
        layers = sorted({effect.layer for effect in self.effects})
        rows = [[e for e in self.effects if e.layer == layer] for layer in layers]
        values = [[self._shown(effect, metric) for effect in row] for row in rows]
        plots.heat_map(
            path,
            values,
            rows=list(map(str, layers)),
            columns=[self.what if e.index is None else str(e.index) for e in rows[0]],
            title=f"{self.method} ablation",
            row_label="layer",
            column_label=self.what,
            unit="KL in nats" if metric == "kl" else "change of the logit difference",
            centred=metric != "kl",
        )

    def _shown(self, effect: Effect, metric: Metric) -> float:
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
    layers: Sequence[int] | None = None,
    indices: Sequence[int] | None = None,
    positions: int | Sequence[int] | None = None,
    position: int = -1,
    draws: int = 1,
    seed: int = 0,
    prepend_bos: bool | None = None,
) -> Ablation:
    """Ablate parts one at a time and measure what that does to the next token.

    Parameters
    ----------
    model : Model
        What to look into.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    what : {"head", "attn", "mlp", "layer", "neuron"}
        Heads (``at.z``), what attention or time mixing adds, what MLPs add, both, or neurons.
    method : {"zero", "mean", "resample"}
        Mean: over all tokens of all `reference` prompts. Resample: what the part is, position by
        position, on one of the `reference` prompts, which then have as many tokens as the prompt.
    reference : sequence of str, or of sequence of int
        Prompts for mean and resample.
    target, other : str, int or None
        Tokens whose logit difference to follow; without `other`, the target's logit.
    layers, indices : sequence of int or None
        Which layers, and which heads or neurons of each; None for all.
    positions : int, sequence of int or None
        Where to ablate; None is everywhere.
    position : int
        Where to read the prediction.
    draws, seed : int
        Of a resampling: how many reference prompts to draw, and from what seed.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If the model has no such parts.
    ShapeError
        If a position lies outside, reference prompts are missing, or lengths differ.
    """
    tokens, ids = one_prompt(model, prompt, prepend_bos, "ablation")
    place, ablated = places_in(position, len(ids))[0], places_in(positions, len(ids))
    if target is None and other is not None:
        raise ShapeError(f"other={other!r} is compared with a target: say target= too.")
    wanted = [None if token is None else token_id(model, token) for token in (target, other)]
    parts = every_part(model, what, layers, indices)
    refs, values, drawn = replacements(
        model, ids, parts, method, reference, draws=draws, seed=seed, prepend_bos=prepend_bos
    )
    own: LogitsWanted = "last" if place == len(ids) - 1 else "all"
    intact = model.run(tokens, logits=own)
    effects = []
    for part in tracked(parts, "ablating"):
        runs = (model.run(tokens, edits=edits_of(part, value, ablated), logits=own)
                for value in values)  # fmt: skip
        effects.append(_effect(part, intact, runs, place, wanted))
    return Ablation(
        effects=tuple(effects),
        what=what,
        method=method,
        target=wanted[0],
        other=wanted[1],
        intact=_difference(intact, place, wanted),
        position=place,
        ablated=tuple(ablated),
        reference=refs,
        draws=drawn,
        seed=seed if method == "resample" else None,
        tokens=ids,
        model=model,
    )


def _effect(
    part: Part, intact: Run, runs: Iterator[Run], place: int, wanted: Sequence[int | None]
) -> Effect:
    """Return the mean effect over draws."""
    kls, differences = [], []
    for run in runs:
        kls.append(compare(intact, run, position=_where(run, place), top=1).kl)
        differences.append(_difference(run, place, wanted))
    known = [d for d in differences if d is not None]
    mean = sum(known) / len(known) if known else None
    return Effect(part.layer, part.index, sum(kls) / len(kls), mean)


def _difference(run: Run, place: int, wanted: Sequence[int | None]) -> float | None:
    target, other = wanted
    if target is None:
        return None
    row = run.model.backend.to_host(run.logits_at(_where(run, place)))
    return float(row[target]) - (0.0 if other is None else float(row[other]))


def _where(run: Run, place: int) -> int:
    """Return which of the run's own logits are those of a position."""
    return -1 if run.logits is not None and run.logits.shape[1] == 1 else place


def _name(effect: Effect) -> str:
    return f"{effect.layer}" if effect.index is None else f"{effect.layer}.{effect.index}"
