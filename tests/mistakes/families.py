"""Mistakes in the families' differences from LLaMA, each with the case that must show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mi_ref import Model
from mi_ref.config.decoder import Causal, Layer, Mask, QKNorm, ScoreCap, Window
from mi_ref.ops.ops import Ops
from mi_ref.params.params import LayerParams, Linear, Norm
from tests.mistakes.mutations import (
    Mistake,
    act_fn,
    attention,
    blocks,
    both,
    but_heads,
    config,
    each_expert,
    eps,
    experts,
    extra,
    layers,
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


def bessel(right: Ops) -> Any:
    """Divide the sum of squares by their number minus one."""

    def wrong(x: Any, eps: float) -> Any:
        n = x.shape[-1]
        return np.sqrt(np.sum(x * x, axis=-1, keepdims=True) / (n - 1) + eps)

    return wrong


def gain(slot: str, change: Any) -> Any:
    """Return a function that gives one norm of some parameters with another gain."""
    return lambda w: replace(getattr(w, slot), weight=change(getattr(w, slot).weight))


def without(slot: str) -> Any:
    """Leave one of the blocks' norms out."""
    absent: dict[str, Any] = {slot: None}
    structure = layers(lambda layer, number: replace(layer, **absent))
    return both(structure, blocks(lambda w: replace(w, **absent)))


def windows(choose: Any) -> Any:
    """Give every layer another window; the function gets the old one."""
    return attention(mask=lambda attn: masked(choose(attn.window)))


def masked(window: int | None) -> Mask:
    return Causal() if window is None else Window(size=window)


def other_layers(layer: Layer, number: int) -> Layer:
    """Swap windowed and full layers, with windows of three."""
    window = 3 if layer.attn.window is None else None
    return replace(layer, attn=replace(layer.attn, mask=masked(window)))


def rotary_of(number: int) -> Any:
    """Give every layer the rotary embedding of one layer."""

    def plant(model: Model) -> Model:
        return attention(rotary=model.cfg.blocks[number].attn.rotary)(model)

    return plant


def norm_after_rotary(model: Model) -> Model:
    """Multiply queries and keys by the norms' gains after rotation instead of before."""
    first = model.params.blocks[0]
    assert first.q_norm is not None
    assert first.k_norm is not None
    gains = {model.cfg.n_heads: first.q_norm.weight, model.cfg.n_key_value_heads:
             first.k_norm.weight}  # fmt: skip

    def make(right: Ops) -> Any:
        return lambda x, cos, sin, overwrite: right.rotate(x, cos, sin) * gains[x.shape[2]]

    plain = modules(q_norm=gain("q_norm", np.ones_like), k_norm=gain("k_norm", np.ones_like))
    return both(plain, operation(rotate=make))(model)


def qk_norm_by_head(model: Model) -> Model:
    """Norm each head separately where the model norms all as one row."""

    def cut(weight: Any) -> Any:
        return weight[: model.cfg.d_head]

    gains = modules(q_norm=gain("q_norm", cut), k_norm=gain("k_norm", cut))
    return both(extra(QKNorm, lambda norm: replace(norm, per_head=True)), gains)(model)


def joined(w: LayerParams, per_head: int | None = None) -> tuple[Any, Any]:
    """Return weight and bias of query, key and value as one; by heads so wide, if given."""
    parts = (w.query, w.key, w.value)
    weights = [part.weight for part in parts]
    biases = [np.zeros(len(x), x.dtype) if part.bias is None else part.bias
              for part, x in zip(parts, weights, strict=True)]  # fmt: skip
    whole = []
    for arrays in (weights, biases):
        if per_head is None:
            whole.append(np.concatenate(arrays))
        else:
            heads = [x.reshape(-1, per_head, *x.shape[1:]) for x in arrays]
            whole.append(np.concatenate(heads, axis=1).reshape(-1, *arrays[0].shape[1:]))
    return whole[0], whole[1]


def split_last_first(w: LayerParams) -> LayerParams:
    """Cut the joint projection as value, key, query instead of query, key, value."""
    weight, _ = joined(w)
    n_key = len(w.key.weight)
    value, key, query = weight[:n_key], weight[n_key : 2 * n_key], weight[2 * n_key :]
    return replace(w, query=Linear(query, None), key=Linear(key, None), value=Linear(value, None))


def split_whole(model: Model) -> Model:
    """Split a projection ordered by head as if it were ordered by query, key and value."""

    def change(w: LayerParams) -> LayerParams:
        weight, bias = joined(w, model.cfg.d_head)
        query, key, value = map(Linear, np.split(weight, 3), np.split(bias, 3))
        return replace(w, query=query, key=key, value=value)

    new = tuple(map(change, model.params.blocks))
    return replace(model, params=replace(model.params, layers=new))


def next_position(table: Any) -> Any:
    return np.roll(table, -1, axis=0)


def transposed(linear: Linear) -> Linear:
    return Linear(linear.weight.T, linear.bias)


def experts_in_reverse(w: LayerParams) -> Any:
    mixture: Any = w.mlp
    return replace(mixture, experts=mixture.experts[::-1])


def rightly_hidden(before: Any, window: int | None) -> Any:
    """Hide the keys that the causal mask and the window hide."""
    return (before < 0) | (False if window is None else before >= window)


NO_OWN_BIAS = {slot: modules(**{slot: without_bias(slot)}) for slot in ("query", "key", "value")}
SEQUENTIAL = layers(lambda layer, number: replace(layer, order="sequential"))
PARALLEL = layers(lambda layer, number: replace(layer, order="parallel"))
BY_D_HEAD = attention(scale=lambda attn: attn.d_head**-0.5)
WHOLE_HEAD = rotary(dims=lambda attn: attn.d_head)
NOT_CENTRED = operation(center=lambda right: lambda x: x)
MINUS_ONE = modules(ln1=gain("ln1", lambda weight: weight - 1))
NO_LN_BIAS = modules(ln1=lambda w: Norm(w.ln1.weight, None))
CAPPED_LAST = operation(attention_scores=scores(rightly_hidden, cap_last=True))

MISTAKES = (
    Mistake("layer norm not centred", "starcoder2", "ln1_scale", NOT_CENTRED),
    Mistake("layer norm of queries not centred", "phi-qk-norm", "q_norm_scale",
            operation(center=but_heads)),
    Mistake("layer norm divides by n - 1", "phi", "ln1_scale", operation(rms_scale=bessel)),
    Mistake("layer norm without bias", "gpt2", "attn_in", NO_LN_BIAS),
    Mistake("layer norm epsilon 1e-6 for 1e-5", "gpt-neox-parallel", "ln1_scale", eps(1e-6)),
    Mistake("last layer norm without bias", "starcoder2-window", "unembed_in",
            params(lambda w: replace(w, ln_final=Norm(w.ln_final.weight, None)))),
    Mistake("norm gain without the one", "gemma", "attn_in", MINUS_ONE),
    Mistake("embedding not scaled", "gemma2", "embed", config(embed_scale=None)),
    Mistake("embedding scale rounded to bfloat16", "gemma", "embed", config(embed_scale=4.25)),
    Mistake("tied unembedding scaled as the embedding is", "gemma3", "logits",
            params(lambda w: replace(w, unembed=Linear(w.embed * 12**0.5, None)))),
    Mistake("window one too long", "mistral-window", "attn_scores", windows(lambda n: n + 1)),
    Mistake("window one too short", "mistral-window", "attn_scores", windows(lambda n: n - 1)),
    Mistake("window of Phi-3 ignored", "phi3-window", "attn_scores", windows(lambda n: None)),
    Mistake("window of StarCoder2 ignored", "starcoder2-window", "attn_scores",
            windows(lambda n: None)),
    Mistake("window in odd layers for even", "gemma2", "attn_scores", layers(other_layers)),
    Mistake("window in the layers of the default", "gemma2-nocap", "attn_scores",
            layers(other_layers)),
    Mistake("window from the first layer on", "qwen2-window", "attn_scores",
            windows(lambda n: 3)),
    Mistake("window of the second layer ignored", "qwen3-window", "attn_scores",
            windows(lambda n: None)),
    Mistake("soft-cap of scores left out", "gemma2", "attn_scores",
            extra(ScoreCap, lambda cap: None)),
    Mistake("soft-cap of scores after the mask", "gemma2", "attn_scores", CAPPED_LAST),
    Mistake("query_pre_attn_scalar ignored", "gemma2", "attn_scores", BY_D_HEAD),
    Mistake("query_pre_attn_scalar ignored, Gemma 3", "gemma3", "attn_scores", BY_D_HEAD),
    Mistake("norm of attention's output left out", "gemma2", "attn_out", without("ln1_post")),
    Mistake("norm of the MLP's output left out", "olmo2", "mlp_out", without("ln2_post")),
    Mistake("norms of queries and keys left out", "qwen3", "rot_q",
            extra(QKNorm, lambda norm: None)),
    Mistake("norms of queries and keys after rotation", "qwen3", "rot_q", norm_after_rotary),
    Mistake("norms of queries and keys by head", "olmo2", "q_norm_scale", qk_norm_by_head),
    Mistake("norms of queries and keys exchanged", "gemma3", "rot_q",
            modules(q_norm=lambda w: w.k_norm, k_norm=lambda w: w.q_norm)),
    Mistake("scale from d_model / n_heads, Qwen 3", "qwen3", "attn_scores",
            attention(scale=(14 / 6) ** -0.5)),
    Mistake("rotary of windowed layers in the full one", "gemma3", "rot_q", rotary_of(0)),
    Mistake("rotary of the full layer in windowed ones", "gemma3", "rot_q", rotary_of(2)),
    Mistake("rotary base 10000 for 100000", "starcoder2", "rot_q", rope(theta=10_000.0)),
    Mistake("whole head rotated for half", "phi", "rot_q", WHOLE_HEAD),
    Mistake("whole head rotated for a quarter", "gpt-neox-parallel", "rot_q", WHOLE_HEAD),
    Mistake("longrope ignored", "phi4-mini", "rot_q", rotary(rope=plain_rope)),
    Mistake("longrope short factors beyond the length", "phi3-longrope-long", "rot_q",
            rope(long_factors=lambda old: old.short_factors)),
    Mistake("longrope long factors within the length", "phi3-longrope-short", "rot_q",
            rope(short_factors=lambda old: old.long_factors)),
    Mistake("longrope attention factor left out", "phi3-longrope-short", "rot_q",
            rope(attention_factor=1.0)),
    Mistake("joint projection cut as value, key, query", "phi3-window", "q",
            blocks(split_last_first)),
    Mistake("joint projection cut as key, query, value", "gpt2", "q",
            modules(query=lambda w: w.key, key=lambda w: w.query)),
    Mistake("joint projection cut whole for by head", "gpt-neox-sequential", "q", split_whole),
    Mistake("joint gate and up cut in the wrong order", "phi3-window", "pre",
            mlps(gate=lambda mlp: mlp.into, into=lambda mlp: mlp.gate)),
    Mistake("linear map not transposed", "gpt2", "result",
            modules(out=lambda w: transposed(w.out))),
    Mistake("parallel block run in sequence, two norms", "gpt-neox-parallel", "ln2_scale",
            SEQUENTIAL),
    Mistake("parallel block run in sequence, one norm", "phi", "mlp_in", SEQUENTIAL),
    Mistake("sequential block run in parallel", "gpt-neox-sequential", "ln2_scale", PARALLEL),
    Mistake("GELU exact for tanh, gated", "gemma", "post", act_fn("gelu")),
    Mistake("GELU exact for tanh, plain", "gpt2", "post", act_fn("gelu")),
    Mistake("GELU by tanh for exact, plain", "gpt-neox-parallel", "post", act_fn("gelu_tanh")),
    Mistake("weights of experts not renormalised", "mixtral", "expert_weights",
            experts(renormalise=False)),
    Mistake("weights of experts renormalised", "qwen3-moe-raw", "expert_weights",
            experts(renormalise=True)),
    Mistake("one expert too many", "mixtral", "expert_weights", experts(n_active=3)),
    Mistake("one expert too few", "qwen3-moe", "expert_weights", experts(n_active=1)),
    Mistake("experts' gate and up exchanged", "qwen3-moe", "mlp_out_raw",
            each_expert(gate=lambda w: w.into, into=lambda w: w.gate)),
    Mistake("experts in reverse order", "mixtral", "mlp_out_raw", modules(mlp=experts_in_reverse)),
    Mistake("bias of the unembedding left out", "phi", "logits",
            params(lambda w: replace(w, unembed=Linear(w.unembed.weight, None)))),
    Mistake("learned positions off by one", "gpt2", "pos_embed",
            params(lambda w: replace(w, pos_embed=next_position(w.pos_embed)))),
    Mistake("inverse layer scale ignored", "gpt2-scaled", "attn_scores", BY_D_HEAD),
    Mistake("query bias of Qwen 2 left out", "qwen2", "q", NO_OWN_BIAS["query"]),
    Mistake("key bias of Qwen 2 left out", "qwen2", "k", NO_OWN_BIAS["key"]),
    Mistake("value bias of Qwen 2 left out", "qwen2", "v", NO_OWN_BIAS["value"]),
    Mistake("output bias of StarCoder2 left out", "starcoder2", "attn_out_raw",
            modules(out=without_bias("out"))),
    Mistake("untied unembedding of GPT-2 tied", "gpt2-scaled", "logits",
            params(lambda w: replace(w, unembed=Linear(w.embed, None)))),
    Mistake("head width from d_model / n_heads in the scale", "mistral-nemo", "attn_scores",
            lambda model: attention(
                scale=(model.cfg.d_model / model.cfg.n_heads) ** -0.5)(model)),
)  # fmt: skip
