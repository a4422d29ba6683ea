"""Mistakes that a LLaMA decoder can contain, each with the case that must show it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mi_ref.config.rope import DefaultRope
from mi_ref.ops.ops import Ops
from mi_ref.params.params import Linear, Norm
from tests.mistakes.mutations import (
    Mistake,
    act_fn,
    attention,
    eps,
    mlps,
    modules,
    operation,
    params,
    plain_rope,
    rope,
    rotary,
    scores,
    without_bias,
)


def backwards(right: Ops) -> Any:
    return lambda x, cos, sin, overwrite: right.rotate(x, cos, -sin, overwrite=overwrite)


def interleaved(x: Any, cos: Any, sin: Any, *, overwrite: bool) -> Any:
    """Rotate neighbours (2i, 2i + 1), as in the GPT-J style."""
    cos, sin = cos[:, None, :], sin[:, None, :]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 1::2] * cos + x[..., 0::2] * sin
    return out


def key_heads_in_turn(right: Ops) -> Any:
    """Give query head h the key head h modulo their number."""

    def wrong(q: Any, k: Any, **options: Any) -> Any:
        n_heads, n_key = q.shape[2], k.shape[2]
        dealt = k[:, :, [h % n_key for h in range(n_heads)]]
        return right.attention_scores(q, dealt, **options)

    return wrong


def over_queries(right: Ops) -> Any:
    def pattern(scores: Any, *, overwrite: bool) -> Any:
        return right.softmax(np.maximum(scores, -1e9).mT).mT

    return pattern


def masked(shift: int) -> Callable[[Ops], Any]:
    """Let queries see up to `shift` later keys."""

    def hidden(before: Any, window: int | None) -> Any:
        hide = before < -shift
        hide[0, 0] = False
        return hide

    return scores(hidden)


def swapped_rows(weight: Any) -> Any:
    """Exchange the first two key heads of three wide rows: what a wrong reshape does."""
    half = weight.shape[0] // 2
    return np.concatenate([weight[half:], weight[:half]])


NO_GAIN = modules(ln1=lambda w: replace(w.ln1, weight=np.ones_like(w.ln1.weight)))
GAIN_PLUS_ONE = modules(ln2=lambda w: replace(w.ln2, weight=1 + w.ln2.weight))
YARN_FACTOR = 0.1 * math.log(4.0) + 1

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
            rotary(rope=DefaultRope(theta=10_000.0))),
    Mistake("rotary pairs interleaved", "llama2", "rot_q", operation(rotate=lambda o: interleaved)),
    Mistake("rotary turned backwards", "llama2", "rot_q", operation(rotate=backwards)),
    Mistake("key heads dealt in turn", "llama2", "attn_scores",
            operation(attention_scores=key_heads_in_turn)),
    Mistake("key heads exchanged", "llama2", "k",
            modules(key=lambda w: Linear(swapped_rows(w.key.weight), w.key.bias))),
    Mistake("mask shows one future key", "llama2", "attn_scores",
            operation(attention_scores=masked(1))),
    Mistake("mask hides the query's own key", "llama2", "attn_scores",
            operation(attention_scores=masked(-1))),
    Mistake("scores not scaled", "llama2", "attn_scores", attention(scale=1.0)),
    Mistake("scale 1/d_head without the root", "llama2", "attn_scores",
            attention(scale=lambda attn: 1 / attn.d_head)),
    Mistake("scale from d_model / n_heads", "llama-head-dim", "attn_scores",
            attention(scale=lambda attn: (16 / attn.n_heads) ** -0.5)),
    Mistake("softmax over the queries", "llama2", "pattern",
            operation(attention_pattern=over_queries)),
    Mistake("query bias left out", "llama-biases", "q", modules(query=without_bias("query"))),
    Mistake("key bias left out", "llama-biases", "k", modules(key=without_bias("key"))),
    Mistake("value bias left out", "llama-biases", "v", modules(value=without_bias("value"))),
    Mistake("output bias left out", "llama-biases", "attn_out_raw",
            modules(out=without_bias("out"))),
    Mistake("gate bias left out", "llama-biases", "pre", mlps(gate=without_bias("gate"))),
    Mistake("up bias left out", "llama-biases", "pre_linear", mlps(into=without_bias("into"))),
    Mistake("down bias left out", "llama-biases", "mlp_out_raw", mlps(out=without_bias("out"))),
    Mistake("gate and up exchanged", "llama1", "pre",
            mlps(gate=lambda mlp: mlp.into, into=lambda mlp: mlp.gate)),
    Mistake("key and value exchanged", "llama1", "k",
            modules(key=lambda w: w.value, value=lambda w: w.key)),
    Mistake("linear scaling ignored", "llama-linear", "rot_q", rotary(rope=plain_rope)),
    Mistake("dynamic base ignored", "llama-dynamic-beyond", "rot_q", rotary(rope=plain_rope)),
    Mistake("dynamic factor 2 for 3", "llama-dynamic-beyond", "rot_q", rope(factor=2.0)),
    Mistake("llama3 scaling ignored", "llama3.1-rope", "rot_q", rotary(rope=plain_rope)),
    Mistake("llama3 smoothing ignored", "llama3.1-rope", "rot_q", rope(low_freq_factor=3.999999)),
    Mistake("yarn ignored", "llama-yarn", "rot_q", rotary(rope=plain_rope)),
    Mistake("yarn attention factor ignored", "llama-yarn", "rot_q", rope(attention_factor=1.0)),
    Mistake("yarn mscale ignored", "llama-yarn-mscale", "rot_q",
            rope(attention_factor=YARN_FACTOR)),
    Mistake("yarn given factor ignored", "llama-yarn-attention-factor", "rot_q",
            rope(attention_factor=YARN_FACTOR)),
    Mistake("yarn default betas", "llama-yarn-beta", "rot_q", rope(beta_fast=32.0, beta_slow=1.0)),
    Mistake("yarn ramp rounded", "llama-yarn-no-truncate", "rot_q", rope(truncate=True)),
    Mistake("unembedding of an untied model tied", "llama2", "logits",
            params(lambda w: replace(w, unembed=Linear(w.embed, None)))),
    Mistake("last norm left without gain", "llama2", "unembed_in",
            params(lambda w: replace(w, ln_final=Norm(np.ones_like(w.ln_final.weight), None)))),
)  # fmt: skip
