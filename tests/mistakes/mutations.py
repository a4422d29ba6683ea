"""The parts of planted mistakes: a mutation returns a model that computes something else."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mi_ref import Model
from mi_ref.config.decoder import ActivationName, Attention, DecoderConfig, Experts, Layer
from mi_ref.config.rope import DefaultRope, Rope
from mi_ref.hooks.decoder_points import decoder_hook_points
from mi_ref.ops import ops
from mi_ref.ops.ops import Ops
from mi_ref.params.params import DecoderParams, ExpertsParams, LayerParams, Linear
from mi_ref.testing import GoldenCase, relative_error, site_name

Mutation = Callable[[Model], Model]

TOLERANCE = {"float64": 1e-12, "float32": 5e-6}
GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "data"


@dataclass(frozen=True)
class Mistake:
    """A mistake, the case that shows it, and the first site at which it must show."""

    what: str
    case: str
    site: str
    plant: Mutation


def first_failing(model: Model, case: GoldenCase, bound: float) -> tuple[str, float]:
    """Return the site of the first wrong hook, and its error; or nothing and zero.

    Hooks that the mistake removes or adds do not count: a wrong number has to show it. The error
    of a wrong shape is infinite.
    """
    present = {str(entry.point) for entry in decoder_hook_points(model.cfg)}
    hooks = [hook for hook in case.hooks if hook in present]
    run = model.run(case.tokens, capture=hooks)
    for hook in hooks:
        found, wanted = np.asarray(run[hook]), case.expected(hook)
        error = relative_error(found, wanted) if found.shape == wanted.shape else math.inf
        if not error <= bound:
            return site_name(hook), error
    return "", 0.0


def config(**changes: Any) -> Mutation:
    """Change fields of the config that all layers share."""
    return lambda model: replace(model, cfg=replace(model.cfg, **changes))


def layers(change: Callable[[Layer, int], Layer]) -> Mutation:
    """Change every layer's structure; the function gets the layer and its number."""

    def plant(model: Model) -> Model:
        changed = tuple(change(layer, number) for number, layer in enumerate(model.cfg.blocks))
        return replace(model, cfg=replace(model.cfg, layers=changed))

    return plant


def attention(**changes: Any) -> Mutation:
    """Change fields of every layer's attention; a function gets the old attention."""

    def change(attn: Attention) -> Attention:
        new = {key: value(attn) if callable(value) else value for key, value in changes.items()}
        return replace(attn, **new)

    return layers(lambda layer, number: replace(layer, attn=change(layer.attn)))


def extra(kind: type, change: Callable[[Any], Any | None]) -> Mutation:
    """Change one extra of every layer's attention; None removes it."""

    def changed(attn: Attention) -> tuple[Any, ...]:
        assert any(isinstance(old, kind) for old in attn.extras)
        new = (change(old) if isinstance(old, kind) else old for old in attn.extras)
        return tuple(each for each in new if each is not None)

    return attention(extras=changed)


def mlp(**changes: Any) -> Mutation:
    """Change fields of every layer's MLP."""
    return layers(lambda layer, number: replace(layer, mlp=replace(layer.mlp, **changes)))


def act_fn(name: ActivationName) -> Mutation:
    """Give every MLP another activation function."""
    return mlp(act_fn=name)


def experts(**changes: Any) -> Mutation:
    """Change fields of every mixture of experts, and leave other MLPs alone."""

    def change(layer: Layer, number: int) -> Layer:
        mixture = isinstance(layer.mlp, Experts)
        return replace(layer, mlp=replace(layer.mlp, **changes)) if mixture else layer

    return layers(change)


def eps(value: float) -> Mutation:
    """Give every norm of the residual stream another epsilon."""

    def change(cfg: DecoderConfig) -> DecoderConfig:
        slots = ("ln1", "ln1_post", "ln2", "ln2_post")
        changed = []
        for layer in cfg.blocks:
            norms = {slot: getattr(layer, slot) for slot in slots}
            new = {slot: replace(norm, eps=value) for slot, norm in norms.items() if norm}
            changed.append(replace(layer, **new))
        return replace(cfg, layers=tuple(changed), ln_final=replace(cfg.ln_final, eps=value))

    return lambda model: replace(model, cfg=change(model.cfg))


def params(change: Callable[[DecoderParams], DecoderParams]) -> Mutation:
    """Change the weights."""
    return lambda model: replace(model, params=change(model.params))


def modules(**slots: Callable[[Any], Any]) -> Mutation:
    """Change modules of every layer; a function gets the layer's parameters."""
    return blocks(lambda w: replace(w, **{slot: change(w) for slot, change in slots.items()}))


def blocks(change: Callable[[LayerParams], LayerParams]) -> Mutation:
    """Change every layer's parameters."""
    return params(lambda w: replace(w, layers=tuple(map(change, w.blocks))))


def mlps(**slots: Callable[[Any], Any]) -> Mutation:
    """Change linear maps of every MLP; a function gets the MLP's parameters."""
    return modules(
        mlp=lambda w: replace(w.mlp, **{slot: change(w.mlp) for slot, change in slots.items()})
    )


def each_expert(**slots: Callable[[Any], Any]) -> Mutation:
    """Change linear maps of every expert; a function gets the expert's parameters."""

    def change(w: LayerParams) -> LayerParams:
        if not isinstance(w.mlp, ExpertsParams):
            return w
        new = (
            replace(expert, **{slot: change(expert) for slot, change in slots.items()})
            for expert in w.mlp.experts
        )
        return replace(w, mlp=replace(w.mlp, experts=tuple(new)))

    return blocks(change)


def operation(**changes: Callable[[Ops], Any]) -> Mutation:
    """Run on the definitions of mi_ref.ops.ops with some of them replaced."""

    def plant(model: Model) -> Model:
        right = ops.standard_ops(np, np.frompyfunc(math.erf, 1, 1))
        wrong = replace(right, **{name: make(right) for name, make in changes.items()})
        return replace(model, backend=replace(model.backend, ops=wrong))

    return plant


def but_heads(right: Ops) -> Any:
    """Centre the residual stream only."""
    return lambda x: right.center(x) if x.ndim == 3 else x


def both(*mutations: Mutation) -> Mutation:
    """Plant several changes that together make one mistake."""

    def plant(model: Model) -> Model:
        for mutation in mutations:
            model = mutation(model)
        return model

    return plant


def scores(
    hidden: Callable[[Any, Any], Any], *, cap_last: bool = False
) -> Callable[[Ops], Callable[..., Any]]:
    """Replace the attention scores' mask.

    Parameters
    ----------
    hidden : callable
        Gets each key's distance before its query, and the window; returns which keys to hide.
    cap_last : bool
        Whether the soft-cap comes after the mask.
    """

    def make(right: Ops) -> Callable[..., Any]:
        def wrong(
            q: Any, k: Any, *, scale: float, softcap: float | None, window: int | None, starts: Any
        ) -> Any:
            group = q.shape[2] // k.shape[2]
            raw = np.einsum("bqhd,bkhd->bhqk", q, np.repeat(k, group, axis=2)) * scale
            positions = np.arange(q.shape[1])
            hide = hidden(positions[:, None] - positions[None, :], window)
            if softcap is not None and not cap_last:
                raw = right.soft_cap(raw, softcap)
            raw = np.where(hide, -np.inf, raw)
            if softcap is not None and cap_last:
                raw = right.soft_cap(raw, softcap)
            return raw

        return wrong

    return make


def rotary(**changes: Any) -> Mutation:
    """Change fields of every layer's rotary embedding; a function gets the attention."""

    def change(attn: Attention) -> Any:
        assert attn.rotary is not None
        new = {key: value(attn) if callable(value) else value for key, value in changes.items()}
        return replace(attn.rotary, **new)

    return attention(rotary=change)


def rope(**changes: Any) -> Mutation:
    """Change fields of every layer's rotary variant; a function gets the variant."""

    def change(attn: Attention) -> Rope:
        assert attn.rotary is not None
        old = attn.rotary.rope
        new = {key: value(old) if callable(value) else value for key, value in changes.items()}
        return replace(old, **new)

    return rotary(rope=change)


def plain_rope(attn: Attention) -> DefaultRope:
    assert attn.rotary is not None
    return DefaultRope(theta=attn.rotary.rope.theta)


def without_bias(slot: str) -> Callable[[Any], Linear]:
    """Return a function that gives one linear map of some parameters without its bias."""
    return lambda w: Linear(getattr(w, slot).weight, None)
