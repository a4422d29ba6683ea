"""The operations of a forward pass in array API terms: their definition, for every library.

A backend may replace any of them by a faster version of its own, which the tests compare with the
definition here. ``reuse=True`` tells such a version that the caller will not look at the named
argument again, so that it may be overwritten; the definitions never overwrite anything.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mi_ref._typing import Array, Float, Int, Namespace

Op = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """One array library's versions of the operations below."""

    lay_out: Op
    embed: Op
    linear: Op
    unembed: Op
    rms_scale: Op
    rms_norm: Op
    activation: Op
    gate: Op
    rotate: Op
    causal_scores: Op
    softmax: Op
    attention_pattern: Op
    mix_values: Op
    causal_attention: Op
    top_k: Op


def standard_ops(xp: Namespace, erf: Callable[[Array], Array]) -> Ops:
    """Return the definitions, bound to a namespace and to its error function."""
    return Ops(
        lay_out=lay_out,
        embed=partial(embed, xp=xp),
        linear=linear,
        unembed=unembed,
        rms_scale=partial(rms_scale, xp=xp),
        rms_norm=partial(rms_norm, xp=xp),
        activation=partial(activation, xp=xp, erf=erf),
        gate=partial(gate, xp=xp, erf=erf),
        rotate=partial(rotate, xp=xp),
        causal_scores=partial(causal_scores, xp=xp),
        softmax=partial(softmax, xp=xp),
        attention_pattern=partial(attention_pattern, xp=xp),
        mix_values=partial(mix_values, xp=xp),
        causal_attention=partial(causal_attention, xp=xp),
        top_k=partial(top_k, xp=xp),
    )


def lay_out(
    x: Float[Array, "*shape"], like: Float[Array, "*shape"] | None
) -> Float[Array, "*shape"]:
    """Return `x` in the memory order of `like`; without it, in that of a residual stream.

    What comes from outside goes through here, so that equal values give equal bits from then on,
    in whatever order they lay.
    """
    return x


def embed(
    table: Float[Array, "n d_model"], tokens: Int[Array, "*rows"], *, xp: Namespace
) -> Float[Array, "*rows d_model"]:
    """Return the table's row for each token."""
    flat = xp.reshape(tokens, (-1,))  # [batch, pos] -> [batch * pos]
    return xp.reshape(xp.take(table, flat, axis=0), (*tokens.shape, table.shape[1]))


def linear(
    x: Float[Array, "*rows d_in"],
    weight: Float[Array, "d_out d_in"],
    bias: Float[Array, " d_out"] | None,
) -> Float[Array, "*rows d_out"]:
    """Return ``x @ weight.T + bias``."""
    product = x @ weight.mT
    return product if bias is None else product + bias


def unembed(
    x: Float[Array, "*rows d_model"], weight: Float[Array, "d_vocab d_model"]
) -> Float[Array, "*rows d_vocab"]:
    """Return ``x @ weight.T``, in an array that suits reading it row by row."""
    return linear(x, weight, None)


def rms_scale(
    x: Float[Array, "*rows d_model"], eps: float, *, xp: Namespace
) -> Float[Array, "*rows 1"]:
    """Return ``sqrt(mean(x²) + eps)``, what an RMS norm divides by."""
    return xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)


def rms_norm(
    x: Float[Array, "*rows d_model"], weight: Float[Array, " d_model"], eps: float, *, xp: Namespace
) -> Float[Array, "*rows d_model"]:
    """Return ``x / rms_scale(x) * weight``, divided first: the order HuggingFace rounds in."""
    return x / rms_scale(x, eps, xp=xp) * weight


def activation(
    x: Float[Array, "*shape"], name: str, *, xp: Namespace, erf: Callable[[Array], Array]
) -> Float[Array, "*shape"]:
    """Return the activation function `name` of `x`.

    ``silu`` is ``x sigmoid(x)``, ``gelu`` is ``x Φ(x)`` by erf, ``gelu_tanh`` its approximation
    ``x/2 (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`` (arXiv:1606.08415), ``relu`` is ``max(x, 0)``.
    """
    match name:
        case "silu":
            # By tanh rather than exp: exp(-x) overflows for large negative x.
            half = x * 0.5
            return half + half * xp.tanh(half)
        case "gelu":
            return x * 0.5 * (1.0 + erf(x * math.sqrt(0.5)))
        case "gelu_tanh":
            return x * 0.5 * (1.0 + xp.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x)))
        case "relu":
            return xp.where(x > 0, x, xp.zeros_like(x))
        case _:
            raise ValueError(f"no activation function is named {name!r}.")


def gate(
    pre: Float[Array, "*shape"],
    pre_linear: Float[Array, "*shape"],
    name: str,
    *,
    reuse: bool,
    xp: Namespace,
    erf: Callable[[Array], Array],
) -> Float[Array, "*shape"]:
    """Return ``activation(pre) * pre_linear``. `reuse` gives up `pre`."""
    return activation(pre, name, xp=xp, erf=erf) * pre_linear


def rotate(
    x: Float[Array, "batch pos head d_head"],
    cos: Float[Array, "pos half"],
    sin: Float[Array, "pos half"],
    *,
    reuse: bool,
    xp: Namespace,
) -> Float[Array, "batch pos head d_head"]:
    """Turn each pair ``(i, i + d_head/2)`` of coordinates by its position's angle.

    `reuse` gives up `x`.
    """
    half = cos.shape[-1]
    cos, sin = cos[:, None, :], sin[:, None, :]
    first, second = x[..., :half], x[..., half:]
    return xp.concat([first * cos - second * sin, second * cos + first * sin], axis=-1)


def causal_scores(
    q: Float[Array, "batch query_pos head d_head"],
    k: Float[Array, "batch key_pos kv_head d_head"],
    scale: float,
    *,
    xp: Namespace,
) -> Float[Array, "batch head query_pos key_pos"]:
    """Return ``scale * q·k``, minus infinity where the key comes after the query."""
    batch, n_query, n_heads, d_head = q.shape
    n_key, n_key_heads = k.shape[1], k.shape[2]
    group = n_heads // n_key_heads
    # [b, p, h, d] -> [b, kv, group * p, d]: the queries that share a key head in one product
    queries = xp.reshape(q, (batch, n_query, n_key_heads, group, d_head))
    queries = xp.permute_dims(queries, (0, 2, 3, 1, 4))
    queries = xp.reshape(queries, (batch, n_key_heads, group * n_query, d_head))
    scores = queries @ xp.permute_dims(k, (0, 2, 3, 1)) * scale
    scores = xp.reshape(scores, (batch, n_heads, n_query, n_key))
    rows = xp.arange(n_query, device=q.device)[:, None]
    visible = xp.arange(n_key, device=q.device)[None, :] <= rows + (n_key - n_query)
    return xp.where(visible, scores, -xp.inf)


def softmax(
    scores: Float[Array, "*rows key_pos"], *, reuse: bool, xp: Namespace
) -> Float[Array, "*rows key_pos"]:
    """Return the softmax over the last axis. `reuse` gives up `scores`."""
    powers = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def attention_pattern(
    scores: Float[Array, "batch head query_pos key_pos"],
    *,
    reuse: bool,
    masked: bool,
    xp: Namespace,
) -> Float[Array, "batch head query_pos key_pos"]:
    """Return the softmax over keys. `reuse` gives up `scores`.

    `masked` promises that keys after the query have minus infinity, and may be left out.
    """
    return softmax(scores, reuse=reuse, xp=xp)


def mix_values(
    pattern: Float[Array, "batch head query_pos key_pos"],
    v: Float[Array, "batch key_pos kv_head d_head"],
    *,
    masked: bool,
    xp: Namespace,
) -> Float[Array, "batch query_pos head d_head"]:
    """Return each head's values weighted by its pattern.

    `masked` promises that keys after the query have weight zero, and may be left out.
    """
    batch, n_heads, n_query, n_key = pattern.shape
    n_key_heads, d_head = v.shape[2], v.shape[3]
    group = n_heads // n_key_heads
    rows = xp.reshape(pattern, (batch, n_key_heads, group * n_query, n_key))
    mixed = rows @ xp.permute_dims(v, (0, 2, 1, 3))
    mixed = xp.reshape(mixed, (batch, n_heads, n_query, d_head))
    return xp.permute_dims(mixed, (0, 2, 1, 3))


def causal_attention(
    q: Float[Array, "batch query_pos head d_head"],
    k: Float[Array, "batch key_pos kv_head d_head"],
    v: Float[Array, "batch key_pos kv_head d_head"],
    scale: float,
    *,
    xp: Namespace,
) -> Float[Array, "batch query_pos head d_head"]:
    """Return causal attention as a whole, for when nobody looks at scores or pattern."""
    pattern = softmax(causal_scores(q, k, scale, xp=xp), reuse=True, xp=xp)
    return mix_values(pattern, v, masked=True, xp=xp)


def top_k(
    x: Float[Array, "*rows n"], k: int, *, xp: Namespace
) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """Return the `k` largest values of each row, largest first, and where they stand.

    Of equal values the first comes first.
    """
    # Of the negative: NumPy sorts upwards only.
    order = xp.argsort(-x, axis=-1, stable=True)[..., :k]
    return xp.take_along_axis(x, order, axis=-1), order
