"""The residual stream as it grows, and the logit that each stage of it would give.

The streams are the model's own, after the embedding, each attention and each MLP; what one stage
has more than the stage before is what the component between them wrote, as `residual_decomposition`
has it. Two logits belong to each, both those of the model at the last stage:

- frozen: the final norm divides by what it divided by on the final stream. Linear, so that the
  steps are the contributions of `logit_attribution`.
- own: the norm divides by this stream's own size, as in the logit lens.

In a model with a final soft-cap the logits are those before it.

Source: TransformerLens' ``accumulated_resid``, whose ``apply_ln`` freezes the norm; nostalgebraist,
"interpreting GPT: the logit lens" (2020).
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.prompts import one_prompt, places
from mi_ref.analysis.measure.metrics import Token, logit_difference, token
from mi_ref.config.decoder import LayerNorm
from mi_ref.edits.intervention import Places
from mi_ref.errors import TokenError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import Point, at
from mi_ref.model import Model
from mi_ref.output import plots
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.prompt import Prompt

Rows = tuple[tuple[float, ...], ...]
"""Numbers by stage, then position."""


@dataclass(frozen=True, slots=True, repr=False)
class AccumulatedResidual(Result):
    """The residual stream after each stage, at some positions of one prompt.

    Attributes
    ----------
    stages : tuple of str
        What has written last: ``embed``, ``attn 0``, ``mlp 0``; or of whole layers ``layer 0``.
    streams : Array
        The stream after each, ``[stage, pos, d_model]``.
    norms, cosines : tuple of tuple of float
        Its length, and its cosine to the final one; by stage, then position.
    frozen, own : tuple of tuple of float, or None
        The logit of `target`, less that of `other` if there is one, with the norm of the final
        stream and with each stream's own; None without a target.
    target, other : Token or None
        Whose logits.
    before_softcap : bool
        Whether the model bounds its logits, and these are not bounded yet.
    positions : tuple of int
        Counted from the front.
    tokens : tuple of int
        The prompt's.
    """

    stages: tuple[str, ...]
    streams: Float[Array, "stage pos d_model"] = field(compare=False)
    norms: Rows
    cosines: Rows
    frozen: Rows | None
    own: Rows | None
    target: Token | None
    other: Token | None
    before_softcap: bool
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    @property
    def what(self) -> str:
        """Which logit, in words."""
        names = [repr(each.text) for each in (self.target, self.other) if each is not None]
        cap = ", uncapped" if self.before_softcap else ""
        return f"logit {' − '.join(names)}{cap}" if names else ""

    def table(self) -> Table:
        """Return one row per stage, at the last of the positions."""
        place = self.positions[-1]
        text = self.origin.token_string(self.tokens[place])
        title = f"residual stream at position {place}, {text!r}"
        logits = [] if self.frozen is None else [">frozen norm", ">own norm"]
        table = Table(
            ["after", ">norm", ">cosine to final", *logits],
            f"{title}; {self.what}" if logits else title,
        )
        for n, name in enumerate(self.stages):
            rows = [each[n][-1] for each in (self.frozen, self.own) if each is not None]
            numbers = f"{self.norms[n][-1]:.3f}", f"{self.cosines[n][-1]:.3f}"
            table.add(name, *numbers, *(f"{value:+.3f}" for value in rows))
        return table

    def summary(self) -> str:
        """Return both ends of the way as a sentence."""
        first, last, unit = self.stages[0], self.stages[-1], self.what or "The norm"
        rows = [row[-1] for row in (self.frozen or self.norms)]
        said = f"{unit} is {rows[0]:.3f} after {first} and {rows[-1]:.3f} after {last}"
        if self.frozen is None:
            return f"{said}."
        steps = [abs(after - before) for before, after in pairwise(rows)]
        return f"{said}; {self.stages[1 + steps.index(max(steps))]} moves it most."

    def record(self) -> dict[str, Any]:
        """Return every number but the vectors themselves."""
        return record_of(
            self,
            "accumulated_residual",
            self.tokens,
            positions=list(self.positions),
            stages=list(self.stages),
            norms=self.norms,
            cosines=self.cosines,
            target=None if self.target is None else asdict(self.target),
            other=None if self.other is None else asdict(self.other),
            before_softcap=self.before_softcap,
            frozen=self.frozen,
            own=self.own,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw both logits at the last position over the stages; without a target, the norm."""
        lines = {"norm": self.norms}
        if self.frozen is not None and self.own is not None:
            lines = {"norm of the final stream": self.frozen, "each stream's own norm": self.own}
        plots.curves(
            path,
            [float(n) for n in range(len(self.stages))],
            {name: [row[-1] for row in rows] for name, rows in lines.items()},
            title=f"{self.origin.name}: the stream as it grows",
            x_label=f"stage, from 0, {self.stages[0]}, to {self.stages[-1]}",
            y_label=self.what or "norm of the stream",
        )


def accumulated_residual(
    model: Model,
    prompt: Prompt,
    target: str | int | None = None,
    other: str | int | None = None,
    *,
    mid: bool | None = None,
    positions: Places = -1,
    prepend_bos: bool | None = None,
) -> AccumulatedResidual:
    """Return the residual stream after each stage, and the logit that it would give.

    Parameters
    ----------
    model : Model
        What to look into; recurrent ones too.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    target, other : str, int or None
        Tokens, as ids or as texts of exactly one token, whose logit or logit difference to follow.
    mid : bool or None
        Whether to stop between attention and MLP too; None for where there is such a stream, which
        parallel blocks lack.
    positions : Places
        Where to look; negative counts from the end, None is everywhere.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If `mid` is asked of parallel blocks.
    TokenError
        If `other` is given without a target, or is the same token.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    chosen = places(positions, len(ids), "positions")
    if target is None and other is not None:
        raise TokenError(f"other={other!r} is what a target is compared with: name that too.")
    wanted: tuple[Token, ...] = () if target is None else (token(model, target),)
    if target is not None and other is not None:
        pair = logit_difference(model, target, other)
        wanted = pair.token, pair.other
    points = _points(model, mid)
    asked = [capture(point, pos=chosen) for point in points.values()]
    run = model.run(ids, capture=asked, logits="none")
    streams = model.backend.xp.stack([run[point][0, :, :] for point in points.values()])
    return AccumulatedResidual(
        stages=tuple(points),
        streams=streams,
        norms=_plain(_length(streams, model), model),
        cosines=_plain(_cosines(streams, model), model),
        frozen=_plain(_logits(streams, wanted, model, frozen=True), model) if wanted else None,
        own=_plain(_logits(streams, wanted, model, frozen=False), model) if wanted else None,
        target=wanted[0] if wanted else None,
        other=wanted[1] if len(wanted) > 1 else None,
        positions=chosen,
        tokens=ids,
        before_softcap=model.cfg.softcap is not None,
        origin=model.origin,
    )


def _points(model: Model, mid: bool | None) -> dict[str, Point]:
    """Return where the stream is read, by what has written last."""
    points: dict[str, Point] = {"embed": at.resid_pre[0]}
    for layer in range(model.cfg.n_layers):
        there = model.hook_points.absence(at.resid_mid[layer]) is None
        if there if mid is None else mid:
            points[f"attn {layer}"] = at.resid_mid[layer]
            points[f"mlp {layer}"] = at.resid_post[layer]
        else:
            points[f"layer {layer}"] = at.resid_post[layer]
    return points


def _length(x: Float[Array, "stage pos d_model"], model: Model) -> Float[Array, "stage pos"]:
    return model.backend.xp.sqrt(model.backend.xp.sum(x * x, axis=-1))


def _cosines(x: Float[Array, "stage pos d_model"], model: Model) -> Float[Array, "stage pos"]:
    length, final = _length(x, model), x[-1:, :, :]
    return model.backend.xp.sum(x * final, axis=-1) / (length * length[-1:, :])


def _logits(
    x: Float[Array, "stage pos d_model"], wanted: tuple[Token, ...], model: Model, *, frozen: bool
) -> Float[Array, "stage pos"]:
    """Return the first token's logit, less the second's if there are two."""
    xp, ops, kind = model.backend.xp, model.backend.ops, model.cfg.ln_final
    norm, unembed = model.params.ln_final, model.params.unembed
    if isinstance(kind, LayerNorm):
        x = ops.center(x)
    x = x / ops.rms_scale(x[-1:, :, :] if frozen else x, kind.eps) * norm.weight
    if norm.bias is not None:
        x = x + norm.bias
    logits = [xp.sum(x * unembed.weight[each.id, :], axis=-1) for each in wanted]
    if unembed.bias is not None:
        logits = [logit + unembed.bias[each.id] for logit, each in zip(logits, wanted, strict=True)]
    return logits[0] if len(logits) == 1 else logits[0] - logits[1]


def _plain(x: Float[Array, "stage pos"], model: Model) -> Rows:
    return tuple(map(tuple, model.backend.to_host(x).tolist()))
