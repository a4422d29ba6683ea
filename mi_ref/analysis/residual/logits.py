"""Direct logit attribution: what each component contributes to a logit by itself.

A logit difference is linear in the final residual stream once the final norm divides by what it
divided by on this prompt. So it splits into what components, heads or neurons wrote, the bias of
the norm and that of the unembedding; the parts sum to the whole, which is checked each time. What a
component does through later ones is counted as theirs.

In a model with a final soft-cap the logits are those before it.

Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021); the frozen norm
and the centring over the vocabulary as in TransformerLens.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.prompts import one_prompt, places
from mi_ref.analysis.lens.plot import shown
from mi_ref.analysis.measure.metrics import logit_difference
from mi_ref.analysis.residual.parts import (
    Component,
    check_sum,
    points_needed,
    stream_writes,
)
from mi_ref.config.decoder import LayerNorm
from mi_ref.edits.intervention import Places
from mi_ref.errors import ArgumentError, ShapeError
from mi_ref.hooks.capture import CaptureLike, capture
from mi_ref.hooks.sites import at
from mi_ref.model import LogitsWanted, Model
from mi_ref.output import plots
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.run import Run
from mi_ref.text.prompt import Prompt

By: TypeAlias = Literal["component", "head", "neuron"]
"""How finely to split: attention and MLP whole, attention into heads, or MLPs into neurons."""
_DRAWN = 30
"""Contributions that a picture of more than heads and whole components shows."""


@dataclass(frozen=True, slots=True, repr=False)
class LogitAttribution(Result):
    """A logit difference, or a logit less the mean of all, in parts.

    Attributes
    ----------
    components : tuple of Component
        In the order in which they write; the biases of the end last.
    contributions : tuple of tuple of float
        In logits, by component, then position; they sum to `totals`.
    totals : tuple of float
        The model's own, by position, before any soft-cap.
    target, other : int, int or None
        ``logit(target) - logit(other)``; None: less the mean over the vocabulary.
    before_softcap : bool
        Whether the model bounds its logits, and these are not bounded yet.
    by : {"component", "head", "neuron"}
        How finely it is split.
    positions : tuple of int
        Counted from the front.
    tokens : tuple of int
        The prompt's.
    origin : Origin
        The model, without its weights.
    """

    components: tuple[Component, ...]
    contributions: tuple[tuple[float, ...], ...]
    totals: tuple[float, ...]
    target: int
    other: int | None
    before_softcap: bool
    by: By
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def top(self, k: int = 10, *, position: int = -1) -> list[tuple[Component, float]]:
        """Return the `k` largest contributions of either sign at one position, largest first."""
        place = position % len(self.tokens)
        if place not in self.positions:
            raise ShapeError(f"position {position} is not among {list(self.positions)}.")
        column = self.positions.index(place)
        values = [row[column] for row in self.contributions]
        pairs = zip(self.components, values, strict=True)
        return sorted(pairs, key=lambda pair: -abs(pair[1]))[:k]

    def table(self, k: int = 15) -> Table:
        """Return the `k` largest contributions at the last of the positions, and the sum of all."""
        place, total = self.positions[-1], self.totals[-1]
        table = Table(["component", ">contribution", ">share of sum"], f"{self.what}, at {place}")

        def add(name: object, value: float, style: str = "") -> None:
            share = f"{value / total:+.1%}" if total else ""
            table.add(name, f"{value:+.3f}", share, style=style)

        best = self.top(k, position=place)
        for name, value in best:
            add(name, value)
        if len(best) < len(self.components):
            rest = total - sum(value for _, value in best)
            add(f"{len(self.components) - len(best)} others", rest, "dim")
        add("sum", total, "bold")
        return table

    @property
    def what(self) -> str:
        """What is split, in words."""
        names = [repr(self.origin.token_string(n)) for n in (self.target, self.other)
                 if n is not None]  # fmt: skip
        cap = ", uncapped" if self.before_softcap else ""
        return f"logit {names[0]} − {'mean' if self.other is None else names[1]}{cap}"

    def summary(self) -> str:
        """Return which component contributes most at the last position, as a sentence."""
        component, value = self.top(1, position=self.positions[-1])[0]
        return f"{component} contributes most: {value:+.3f} of {self.totals[-1]:+.3f} in all."

    def record(self) -> dict[str, Any]:
        """Return every number."""
        return record_of(
            self,
            "logit_attribution",
            self.tokens,
            target=self.target,
            other=self.other,
            before_softcap=self.before_softcap,
            by=self.by,
            positions=list(self.positions),
            components=[asdict(c) for c in self.components],
            contributions=self.contributions,
            totals=self.totals,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw heads as layers by heads at the last position, else components by positions."""
        heads = [(c, row[-1]) for c, row in zip(self.components, self.contributions, strict=True)
                 if c.kind == "head"]  # fmt: skip
        if heads:
            n_layers = 1 + max(c.layer for c, _ in heads if c.layer is not None)
            n_heads = 1 + max(c.index for c, _ in heads if c.index is not None)
            values = [[v for c, v in heads if c.layer == n] for n in range(n_layers)]
            rows, columns = list(map(str, range(n_layers))), list(map(str, range(n_heads)))
            labels = ("layer", "head")
        else:
            drawn = self._drawn()
            values = [list(self.contributions[n]) for n in drawn]
            rows = [str(self.components[n]) for n in drawn]
            columns = [shown(self.origin.token_string(self.tokens[n])) for n in self.positions]
            labels = ("component", "at token")
        plots.heat_map(
            path, values, rows=rows, columns=columns, title=self.what, row_label=labels[0],
            column_label=labels[1], unit="contribution in logits", centred=True,
        )  # fmt: skip

    def _drawn(self) -> list[int]:
        """Return which components to draw: of neurons, the largest at the last position."""
        if self.by != "neuron":
            return list(range(len(self.components)))
        order = sorted(range(len(self.components)), key=lambda n: -abs(self.contributions[n][-1]))
        return sorted(order[:_DRAWN])


def logit_attribution(
    model: Model,
    prompt: Prompt,
    target: str | int,
    other: str | int | None = None,
    *,
    by: By = "component",
    positions: Places = -1,
    prepend_bos: bool | None = None,
) -> LogitAttribution:
    """Split ``logit(target) - logit(other)`` into what each component contributes by itself.

    Parameters
    ----------
    model : Model
        What to look into.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    target, other : str or int
        Tokens, as ids or as texts of exactly one token. Without `other`, the target's logit less
        the mean over the vocabulary, since what raises all logits alike changes no prediction.
    before_softcap : bool
        Whether the model bounds its logits, and these are not bounded yet.
    by : {"component", "head", "neuron"}
        How finely to split. Mixtures of experts beside plain MLPs stay whole. By neurons, each
        layer takes ``d_mlp × d_model`` numbers a position while it is looked at.
    positions : Places
        Where to look; negative counts from the end, None is everywhere.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If the model has no heads, or no neurons, of that kind.
    TokenError
        If target and other are one token.
    """
    if by not in ("component", "head", "neuron"):
        raise ArgumentError(f"by={by!r}: expected 'component', 'head' or 'neuron'.")
    ids = one_prompt(model, prompt, prepend_bos)
    chosen = places(positions, len(ids), "positions")
    wanted: tuple[int, int | None] = model.origin.token_id(target), None
    if other is not None:
        pair = logit_difference(model, target, other)
        wanted = pair.token.id, pair.other.id
    every = list(range(model.cfg.n_layers))
    heads = every if by == "head" else []
    # Layers of experts stay whole beside others; a model of nothing else is refused by the run.
    split = [n for n in every if model.hook_points.absence(at.post[n]) is None] or every
    neurons = split if by == "neuron" else []
    points = [*points_needed(model, heads, neurons), at.ln_final_scale]
    last = chosen == (len(ids) - 1,)
    own: LogitsWanted = "last" if last else "all"
    logits: CaptureLike = at.logits if last else capture(at.logits, pos=chosen)
    asked = [*(capture(point, pos=chosen) for point in points), logits]
    run = model.run(ids, capture=asked, logits=own)
    found = [
        *_of_stream(model, run, wanted, heads, neurons),
        *_of_biases(model, wanted, len(chosen)),
    ]
    values = model.backend.xp.concat([value for _, value in found], axis=0)
    totals = _difference(run[at.logits][0, :, :], wanted, model)
    check_sum(values, totals, "the logit difference", model)
    host = model.backend.to_host
    return LogitAttribution(
        components=tuple(name for names, _ in found for name in names),
        contributions=tuple(map(tuple, host(values).tolist())),
        totals=tuple(host(totals).tolist()),
        target=wanted[0],
        other=wanted[1],
        by=by,
        positions=chosen,
        tokens=ids,
        before_softcap=model.cfg.softcap is not None,
        origin=model.origin,
    )


_Tokens: TypeAlias = tuple[int, int | None]
_Found: TypeAlias = tuple[tuple[Component, ...], Array]
"""Components and their contributions ``[component, pos]``."""


def _of_stream(
    model: Model, run: Run, wanted: _Tokens, heads: Sequence[int], neurons: Sequence[int]
) -> Iterator[_Found]:
    """Yield the contributions of what wrote to the stream."""
    xp = model.backend.xp
    # The final norm centres what it reads; that is the same as centring what reads it.
    direction = model.params.ln_final.weight * _direction(model, wanted)
    if isinstance(model.cfg.ln_final, LayerNorm):
        direction = model.backend.ops.center(direction)
    scale = run[at.ln_final_scale][0, :, 0]
    for names, values in stream_writes(model, run, heads, neurons):
        yield names, xp.sum(values * direction, axis=-1) / scale


def _of_biases(model: Model, wanted: _Tokens, n_pos: int) -> Iterator[_Found]:
    """Yield the contributions of the final norm's bias and of the unembedding's."""
    xp = model.backend.xp
    norm, unembedding = model.params.ln_final.bias, model.params.unembed.bias
    if norm is not None:
        part = xp.sum(norm * _direction(model, wanted))
        yield (Component("final norm bias"),), xp.broadcast_to(part, (1, n_pos))
    if unembedding is not None:
        part = _difference(unembedding[None, :], wanted, model)
        yield (Component("unembedding bias"),), xp.broadcast_to(part[:, None], (1, n_pos))


def _direction(model: Model, wanted: _Tokens) -> Float[Array, " d_model"]:
    """Return what the unembedding reads for the difference."""
    weight, (target, other) = model.params.unembed.weight, wanted
    less = model.backend.xp.mean(weight, axis=0) if other is None else weight[other, :]
    return weight[target, :] - less


def _difference(rows: Float[Array, "pos d_vocab"], wanted: _Tokens, model: Model) -> Array:
    target, other = wanted
    less = model.backend.xp.mean(rows, axis=-1) if other is None else rows[:, other]
    return rows[:, target] - less
