"""The operations of a forward pass, defined in array API terms for every library.

A backend may replace any of them with a faster version of its own, which the tests compare with the
definition here. No operation changes its arguments, with one exception: ``overwrite=True`` lets
such a version write over its first argument, which the caller owns: it made the array, and nobody
else holds it. The definitions ignore it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from mi_ref._typing import Array, Float, Int, Namespace
from mi_ref.errors import ArgumentError
from mi_ref.ops.attention import (
    attention,
    attention_pattern,
    attention_scores,
    mix_values,
    soft_cap,
    softmax,
    visible as visible,
)
from mi_ref.ops.recurrence import recurrence

Op = Callable[..., Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ops:
    """One array library's versions of the operations below."""

    lay_out: Op
    embed: Op
    linear: Op
    unembed: Op
    center: Op
    rms_scale: Op
    rms_norm: Op
    activation: Op
    gate: Op
    rotate: Op
    soft_cap: Op
    attention_scores: Op
    softmax: Op
    attention_pattern: Op
    mix_values: Op
    attention: Op
    recurrence: Op
    top_k: Op


def standard_ops(xp: Namespace, erf: Callable[[Array], Array]) -> Ops:
    """Return the definitions, bound to a namespace and its error function."""
    return Ops(
        lay_out=lay_out,
        embed=partial(embed, xp=xp),
        linear=linear,
        unembed=unembed,
        center=partial(center, xp=xp),
        rms_scale=partial(rms_scale, xp=xp),
        rms_norm=partial(rms_norm, xp=xp),
        activation=partial(activation, xp=xp, erf=erf),
        gate=partial(gate, xp=xp, erf=erf),
        rotate=partial(rotate, xp=xp),
        soft_cap=partial(soft_cap, xp=xp),
        attention_scores=partial(attention_scores, xp=xp),
        softmax=partial(softmax, xp=xp),
        attention_pattern=partial(attention_pattern, xp=xp),
        mix_values=partial(mix_values, xp=xp),
        attention=partial(attention, xp=xp),
        recurrence=partial(recurrence, xp=xp),
        top_k=partial(top_k, xp=xp),
    )


def lay_out(
    x: Float[Array, "*shape"], like: Float[Array, "*shape"] | None
) -> Float[Array, "*shape"]:
    """Return `x` in the memory order of `like`, or of a residual stream if that is None.

    Arrays from outside pass through here, so that equal values give equal bits from then on,
    whatever their memory order was.
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
    x: Float[Array, "*rows d_model"],
    weight: Float[Array, "d_vocab d_model"],
    bias: Float[Array, " d_vocab"] | None,
) -> Float[Array, "*rows d_vocab"]:
    """Return ``x @ weight.T + bias``, in an array laid out for reading row by row."""
    return linear(x, weight, bias)


def center(x: Float[Array, "*rows width"], *, xp: Namespace) -> Float[Array, "*rows width"]:
    """Return each row minus its mean."""
    return x - xp.mean(x, axis=-1, keepdims=True)


def rms_scale(
    x: Float[Array, "*rows width"], eps: float, *, xp: Namespace
) -> Float[Array, "*rows 1"]:
    """Return ``sqrt(mean(x²) + eps)``, the denominator of an RMS norm."""
    return xp.sqrt(xp.mean(x * x, axis=-1, keepdims=True) + eps)


def rms_norm(
    x: Float[Array, "*rows width"],
    weight: Float[Array, " width"],
    bias: Float[Array, " width"] | None,
    eps: float,
    *,
    xp: Namespace,
) -> Float[Array, "*rows width"]:
    """Return ``x / rms_scale(x) * weight + bias``, in the order in which HuggingFace rounds.

    On centred rows, this is the layer norm.
    """
    normed = x / rms_scale(x, eps, xp=xp) * weight
    return normed if bias is None else normed + bias


GELU_SLOPES = {"gelu_tanh": math.sqrt(2 / math.pi), "gelu_fast": 0.7978845608}
"""``sqrt(2/π)`` in each tanh approximation of GELU; transformers rounds one of them."""


ACTIVATIONS = ("silu", "sigmoid", "gelu", "gelu_tanh", "gelu_fast", "relu", "relu_squared")
"""The names of the activation functions."""


def _exp_limit(x: Float[Array, "*shape"], xp: Namespace) -> float:
    """Return the largest integer whose exponential is finite in the dtype of `x`."""
    return float(math.floor(math.log(float(xp.finfo(x.dtype).max))))


def activation(
    x: Float[Array, "*shape"], name: str, *, xp: Namespace, erf: Callable[[Array], Array]
) -> Float[Array, "*shape"]:
    """Return the activation function `name` of `x`.

    ``silu`` is ``x sigmoid(x)``; ``gelu`` is ``x Φ(x)``, computed with erf; ``gelu_tanh`` is its
    approximation ``x/2 (1 + tanh(sqrt(2/π) (x + 0.044715 x³)))`` (arXiv:1606.08415); ``gelu_fast``
    is the same with that root to ten digits; ``relu`` is ``max(x, 0)``; ``relu_squared`` is its
    square; ``sigmoid`` is ``1 / (1 + exp(-x))``.

    Raises
    ------
    ArgumentError
        If there is no activation function of that name.
    """
    match name:
        case "silu":
            return x / (1.0 + xp.exp(xp.clip(-x, None, _exp_limit(x, xp))))
        case "sigmoid":
            return 1.0 / (1.0 + xp.exp(xp.clip(-x, None, _exp_limit(x, xp))))
        case "gelu":
            return x * 0.5 * (1.0 + erf(x * math.sqrt(0.5)))
        case "gelu_tanh" | "gelu_fast":
            slope = GELU_SLOPES[name]
            return x * 0.5 * (1.0 + xp.tanh(slope * (x + 0.044715 * x * x * x)))
        case "relu":
            return xp.where(x > 0, x, xp.zeros_like(x))
        case "relu_squared":
            positive = xp.where(x > 0, x, xp.zeros_like(x))
            return positive * positive
        case _:
            raise unknown_activation(name)


def unknown_activation(name: str) -> ArgumentError:
    """Return the error for a name that is not in `ACTIVATIONS`."""
    return ArgumentError(
        f"no activation function is named {name!r}: expected one of {', '.join(ACTIVATIONS)}."
    )


def gate(
    pre: Float[Array, "*shape"],
    pre_linear: Float[Array, "*shape"],
    name: str,
    *,
    overwrite: bool = False,
    xp: Namespace,
    erf: Callable[[Array], Array],
) -> Float[Array, "*shape"]:
    """Return ``activation(pre) * pre_linear``."""
    return activation(pre, name, xp=xp, erf=erf) * pre_linear


def rotate(
    x: Float[Array, "batch pos head d_head"],
    cos: Float[Array, "*rows pos half"],
    sin: Float[Array, "*rows pos half"],
    *,
    overwrite: bool = False,
    xp: Namespace,
) -> Float[Array, "batch pos head d_head"]:
    """Turn each pair ``(i, i + half)`` of coordinates by its position's angle; keep the rest."""
    half = cos.shape[-1]
    cos, sin = cos[..., :, None, :], sin[..., :, None, :]
    first, second, passed = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    turned = [first * cos - second * sin, second * cos + first * sin, passed]
    return xp.concat(turned, axis=-1)


def top_k(
    x: Float[Array, "*rows n"], k: int, *, xp: Namespace
) -> tuple[Float[Array, "*rows k"], Int[Array, "*rows k"]]:
    """Return the `k` largest values of each row, largest first, and their places.

    Equal values keep their order.
    """
    # Negated, because NumPy only sorts upwards.
    order = xp.argsort(-x, axis=-1, stable=True)[..., :k]
    return xp.take_along_axis(x, order, axis=-1), order
