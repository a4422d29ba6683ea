"""Planted mistakes: each must be seen by the golden files, at the hook where it is made.

The table is the claim that the tolerances are tight enough; a mistake that passes them would pass
in the code too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_ref import Model, get_backend, ops
from mi_ref.config import ActivationName, Attention, DecoderConfig
from mi_ref.ops import Ops
from mi_ref.params import DecoderParams, Linear, Norm
from mi_ref.rope import DefaultRope, YarnRope
from mi_ref.testing import GoldenCase, golden_errors, site_name

Load = Callable[..., Model]
Mutation = Callable[[Model], Model]

TOLERANCE = {"float64": 1e-12, "float32": 5e-6}


@dataclass(frozen=True)
class Mistake:
    """A mistake, the case that shows it, and the first site at which it must show."""

    what: str
    case: str
    site: str
    plant: Mutation


def attention(**changes: Any) -> Mutation:
    """Change fields of every layer's attention; a function gets the old value."""

    def plant(model: Model) -> Model:
        def change(attn: Attention) -> Attention:
            new = {key: value(attn) if callable(value) else value for key, value in changes.items()}
            return replace(attn, **new)

        layers = tuple(replace(x, attn=change(x.attn)) for x in model.cfg.layers)
        return replace(model, cfg=replace(model.cfg, layers=layers))

    return plant


def eps(value: float) -> Mutation:
    """Give every norm another epsilon."""

    def change(cfg: DecoderConfig) -> DecoderConfig:
        layers = tuple(replace(x, norm=replace(x.norm, eps=value)) for x in cfg.layers)
        return replace(cfg, layers=layers, ln_final=replace(cfg.ln_final, eps=value))

    return lambda model: replace(model, cfg=change(model.cfg))


def act_fn(name: ActivationName) -> Mutation:
    """Give every MLP another activation function."""

    def plant(model: Model) -> Model:
        layers = [replace(x, mlp=replace(x.mlp, act_fn=name)) for x in model.cfg.layers]
        return replace(model, cfg=replace(model.cfg, layers=tuple(layers)))

    return plant


def params(change: Callable[[DecoderParams], DecoderParams]) -> Mutation:
    """Change the weights."""
    return lambda model: replace(model, params=change(model.params))


def modules(**slots: Callable[[Any], Any]) -> Mutation:
    """Change modules of every layer; a function gets the layer's parameters."""

    def change(w: DecoderParams) -> DecoderParams:
        layers = [replace(x, **{slot: f(x) for slot, f in slots.items()}) for x in w.layers]
        return replace(w, layers=tuple(layers))

    return params(change)


def operation(**changes: Callable[[Ops], Any]) -> Mutation:
    """Run on the definitions of mi_ref.ops with some of them replaced."""

    def plant(model: Model) -> Model:
        right = ops.standard_ops(np, np.frompyfunc(math.erf, 1, 1))
        wrong = replace(right, **{name: make(right) for name, make in changes.items()})
        return replace(model, backend=replace(model.backend, ops=wrong))

    return plant


def backwards(right: Ops) -> Any:
    return lambda x, cos, sin, reuse: right.rotate(x, cos, -sin, reuse=reuse)


def interleaved(x: Any, cos: Any, sin: Any, *, reuse: bool) -> Any:
    """Turn neighbours (2i, 2i + 1), as the GPT-J style does."""
    cos, sin = cos[:, None, :], sin[:, None, :]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return out


def key_heads_in_turn(q: Any, k: Any, scale: float, right: Ops) -> Any:
    """Give query head h the key head h modulo their number."""
    n_heads, n_key = q.shape[2], k.shape[2]
    return right.causal_scores(q, k[:, :, [h % n_key for h in range(n_heads)]], scale)


def over_queries(right: Ops) -> Any:
    def pattern(scores: Any, *, reuse: bool, masked: bool) -> Any:
        return right.softmax(np.maximum(scores, -1e9).mT, reuse=False).mT

    return pattern


def masked(shift: int) -> Callable[[Ops], Any]:
    """Let queries see the keys up to `shift` after themselves."""

    def make(right: Ops) -> Any:
        def scores(q: Any, k: Any, scale: float) -> Any:
            group = q.shape[2] // k.shape[2]
            raw = np.einsum("bqhd,bkhd->bhqk", q, np.repeat(k, group, axis=2)) * scale
            seen = np.tri(q.shape[1], dtype=bool, k=shift)
            seen[0, 0] = True
            return np.where(seen, raw, -np.inf)

        return scores

    return make


def without_bias(slot: str) -> Mutation:
    return modules(**{slot: lambda w: Linear(getattr(w, slot).weight, None)})


def plain_rope(attn: Attention) -> DefaultRope:
    return DefaultRope(theta=attn.rope.theta)


def rope(**changes: Any) -> Mutation:
    return attention(rope=lambda attn: replace(attn.rope, **changes))


def swapped_rows(weight: Any) -> Any:
    """Exchange the first two key heads of three wide rows: what a wrong reshape does."""
    half = weight.shape[0] // 2
    return np.concatenate([weight[half:], weight[:half]])


def yarn_factor(attn: Attention) -> YarnRope:
    assert isinstance(attn.rope, YarnRope)
    return replace(attn.rope, attention_factor=1.0)


NO_GAIN = modules(ln1=lambda w: replace(w.ln1, weight=np.ones_like(w.ln1.weight)))
GAIN_PLUS_ONE = modules(ln2=lambda w: replace(w.ln2, weight=1 + w.ln2.weight))

MISTAKES = (
    Mistake("norm epsilon 1e-5 for 1e-6", "llama1", "ln1_scale", eps(1e-5)),
    Mistake("norm epsilon 1e-6 for 1e-5", "llama2", "ln1_scale", eps(1e-6)),
    Mistake("norm without gain", "llama2", "attn_in", NO_GAIN),
    Mistake("norm gain taken as 1 + weight", "llama2", "mlp_in", GAIN_PLUS_ONE),
    Mistake("GELU by tanh for exact", "llama-biases", "post", act_fn("gelu_tanh")),
    Mistake("GELU exact for tanh", "llama-linear", "post", act_fn("gelu")),
    Mistake("ReLU for SiLU", "llama1", "post", act_fn("relu")),
    Mistake("rotary base 10001 for 10000", "llama3.1-rope", "rot_q", rope(theta=10_001.0)),
    Mistake("rotary base default for 500000", "llama3", "rot_q",
            attention(rope=DefaultRope(theta=10_000.0))),
    Mistake("rotary pairs interleaved", "llama2", "rot_q", operation(rotate=lambda o: interleaved)),
    Mistake("rotary turned backwards", "llama2", "rot_q", operation(rotate=backwards)),
    Mistake("key heads dealt in turn", "llama2", "attn_scores",
            operation(causal_scores=lambda o: lambda q, k, s: key_heads_in_turn(q, k, s, o))),
    Mistake("key heads exchanged", "llama2", "k",
            modules(key=lambda w: Linear(swapped_rows(w.key.weight), w.key.bias))),
    Mistake("mask shows one future key", "llama2", "attn_scores",
            operation(causal_scores=masked(1))),
    Mistake("mask hides the query's own key", "llama2", "attn_scores",
            operation(causal_scores=masked(-1))),
    Mistake("scores not scaled", "llama2", "attn_scores", attention(scale=1.0)),
    Mistake("scale 1/d_head without the root", "llama2", "attn_scores",
            attention(scale=lambda attn: 1 / attn.d_head)),
    Mistake("scale from d_model / n_heads", "llama-head-dim", "attn_scores",
            attention(scale=lambda attn: (16 / attn.n_heads) ** -0.5)),
    Mistake("softmax over the queries", "llama2", "pattern",
            operation(attention_pattern=over_queries)),
    Mistake("query bias left out", "llama-biases", "q", without_bias("query")),
    Mistake("key bias left out", "llama-biases", "k", without_bias("key")),
    Mistake("value bias left out", "llama-biases", "v", without_bias("value")),
    Mistake("output bias left out", "llama-biases", "attn_out_raw", without_bias("out")),
    Mistake("gate bias left out", "llama-biases", "pre", without_bias("mlp_gate")),
    Mistake("up bias left out", "llama-biases", "pre_linear", without_bias("mlp_in")),
    Mistake("down bias left out", "llama-biases", "mlp_out_raw", without_bias("mlp_out")),
    Mistake("gate and up exchanged", "llama1", "pre",
            modules(mlp_gate=lambda w: w.mlp_in, mlp_in=lambda w: w.mlp_gate)),
    Mistake("key and value exchanged", "llama1", "k",
            modules(key=lambda w: w.value, value=lambda w: w.key)),
    Mistake("linear scaling ignored", "llama-linear", "rot_q", attention(rope=plain_rope)),
    Mistake("dynamic base ignored", "llama-dynamic-beyond", "rot_q", attention(rope=plain_rope)),
    Mistake("dynamic factor 2 for 3", "llama-dynamic-beyond", "rot_q", rope(factor=2.0)),
    Mistake("llama3 scaling ignored", "llama3.1-rope", "rot_q", attention(rope=plain_rope)),
    Mistake("llama3 smoothing ignored", "llama3.1-rope", "rot_q", rope(low_freq_factor=3.999999)),
    Mistake("yarn ignored", "llama-yarn", "rot_q", attention(rope=plain_rope)),
    Mistake("yarn attention factor ignored", "llama-yarn", "rot_q", attention(rope=yarn_factor)),
    Mistake("yarn mscale ignored", "llama-yarn-mscale", "rot_q",
            rope(attention_factor=0.1 * math.log(4.0) + 1)),
    Mistake("yarn given factor ignored", "llama-yarn-attention-factor", "rot_q",
            rope(attention_factor=0.1 * math.log(4.0) + 1)),
    Mistake("yarn default betas", "llama-yarn-beta", "rot_q", rope(beta_fast=32.0, beta_slow=1.0)),
    Mistake("yarn ramp rounded", "llama-yarn-no-truncate", "rot_q", rope(truncate=True)),
    Mistake("unembedding of an untied model tied", "llama2", "logits",
            params(lambda w: replace(w, unembed=w.embed))),
    Mistake("last norm left without gain", "llama2", "unembed_in",
            params(lambda w: replace(w, ln_final=Norm(np.ones_like(w.ln_final.weight))))),
)  # fmt: skip


def first_failing(model: Model, case: GoldenCase, bound: float) -> str:
    """Return the first hook that is off, or nothing."""
    errors = golden_errors(model, case)
    return next((hook for hook, error in errors.items() if not error <= bound), "")


@pytest.mark.filterwarnings("ignore:the prompt has 9 tokens")
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("mistake", MISTAKES, ids=[mistake.what for mistake in MISTAKES])
def test_a_mistake_is_seen_where_it_is_made(
    mistake: Mistake, dtype: str, load: Load, repository: Path
) -> None:
    case = GoldenCase(repository / "golden" / mistake.case)
    right = load(mistake.case, get_backend("numpy"), dtype)
    hook = first_failing(mistake.plant(right), case, TOLERANCE[dtype])
    assert hook, f"{mistake.what!r} passes {mistake.case} in {dtype}"
    assert site_name(hook) == mistake.site


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_definitions_unchanged_pass(dtype: str, load: Load, repository: Path) -> None:
    model = operation()(load("llama2", get_backend("numpy"), dtype))
    assert not first_failing(model, GoldenCase(repository / "golden" / "llama2"), TOLERANCE[dtype])
