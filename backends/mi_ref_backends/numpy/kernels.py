"""NumPy's own versions of the operations: few temporaries, memory in the order that suits BLAS.

Activations are kept feature-major: logically ``[batch, pos, d]``, in memory ``[d, batch, pos]``.
Then a product is ``weight @ x`` without a transposition, which streams a stored weight once and, on
few tokens, runs up to twice as fast as ``x @ weight.T``; splitting and merging heads copies no
data. Arrays in any other order work too, only more slowly.

An array is overwritten only if it was made here, or passed with ``overwrite=True``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np

from mi_ref.ops.ops import GELU_SLOPES, unknown_activation
from mi_ref_backends.numpy.erf import erf
from mi_ref_backends.numpy.memory import NpArray, empty, empty_like

_FEW_ROWS = 128
# Elements processed at a time, so that they stay in a core's cache.
_CHUNK = 1 << 15


def lay_out(x: NpArray, like: NpArray | None) -> NpArray:
    """Copy if the order differs: see `mi_ref.ops.ops.lay_out`."""
    if like is None:
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0, -1)
    if x.strides == like.strides:
        return x
    out = empty_like(like)
    out[...] = x
    return out


def embed(table: NpArray, tokens: NpArray) -> NpArray:
    """Look up rows, feature-major: see `mi_ref.ops.ops.embed`."""
    return lay_out(table[tokens], None)


def linear(x: NpArray, weight: NpArray, bias: NpArray | None) -> NpArray:
    """Multiply feature-major: see `mi_ref.ops.ops.linear`."""
    # [batch, pos, d_in] -> [d_in, batch * pos]: a view if x is feature-major
    product = _product(weight, x.reshape(-1, x.shape[-1]).T)
    if bias is not None:
        product += bias[:, None]
    return product.T.reshape(*x.shape[:-1], weight.shape[0])


def unembed(x: NpArray, weight: NpArray, bias: NpArray | None) -> NpArray:
    """Multiply into logits stored row by row, as they are read: see `mi_ref.ops.ops.unembed`."""
    # Always in one order: then a lens on some of the rows gives the same bits as a whole pass.
    columns = np.ascontiguousarray(x.reshape(-1, x.shape[-1]).T)
    logits = empty((columns.shape[1], len(weight)), columns.dtype)
    if columns.shape[1] <= _FEW_ROWS:
        # Transposing few rows costs less than the slower product would.
        logits[...] = _product(weight, columns).T
    else:
        np.matmul(columns.T, weight.T, out=logits)
    if bias is not None:
        logits += bias
    return logits.reshape(*x.shape[:-1], weight.shape[0])


def _product(weight: NpArray, columns: NpArray) -> NpArray:
    out = empty((weight.shape[0], columns.shape[1]), columns.dtype)
    return np.matmul(weight, columns, out=out)


def center(x: NpArray) -> NpArray:
    """Subtract the mean: see `mi_ref.ops.ops.center`."""
    return np.subtract(x, _mean(x.copy(order="K")), out=empty_like(x))


def rms_scale(x: NpArray, eps: float) -> NpArray:
    """Return the denominator: see `mi_ref.ops.ops.rms_scale`."""
    mean = _mean(np.multiply(x, x, out=empty_like(x)))
    mean += eps
    # A new array: a view would keep all the squares in memory.
    scale: NpArray = np.sqrt(mean)
    return scale


def _mean(addends: NpArray) -> NpArray:
    """Return the mean over the last axis, in a part of `addends`, which is overwritten."""
    # By halves, because NumPy's own sum adds in an order that depends on the strides: it would
    # round differently for one position and for many, and badly for feature-major arrays.
    width = addends.shape[-1]
    while (n := addends.shape[-1]) > 1:
        left = addends[..., : n // 2]
        left += addends[..., n // 2 : n - n % 2]
        if n % 2:
            left[..., :1] += addends[..., -1:]
        addends = left
    addends /= width
    return addends


def rms_norm(x: NpArray, weight: NpArray, bias: NpArray | None, eps: float) -> NpArray:
    """Norm in one new array: see `mi_ref.ops.ops.rms_norm`."""
    normed = np.divide(x, rms_scale(x, eps), out=empty_like(x))
    normed *= weight
    if bias is not None:
        normed += bias
    return normed


def activation(x: NpArray, name: str) -> NpArray:
    """Return the activation function: see `mi_ref.ops.ops.activation`."""
    return _activation(name)(x)


def gate(pre: NpArray, pre_linear: NpArray, name: str, *, overwrite: bool = False) -> NpArray:
    """Gate chunk by chunk: see `mi_ref.ops.ops.gate`."""
    function = _activation(name)
    flat, factor = _flat(pre), _flat(pre_linear)
    if flat is None or factor is None or pre.strides != pre_linear.strides:
        gated = function(pre)
        gated *= pre_linear
        return gated
    out = pre if overwrite else empty_like(pre)
    target = _flat(out)
    assert target is not None
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        np.multiply(function(flat[part]), factor[part], out=target[part])
    return out


def _flat(x: NpArray) -> NpArray | None:
    """Return all of `x` in memory order as a flat view; None if it has gaps."""
    ordered = x.transpose(sorted(range(x.ndim), key=lambda axis: -x.strides[axis]))
    return ordered.reshape(-1) if ordered.flags.c_contiguous else None


def _silu(x: NpArray) -> NpArray:
    out: NpArray = np.negative(x)
    # Overflow to infinity is right: x divided by it is zero.
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    np.divide(x, out, out=out)
    return out


def _gelu(x: NpArray) -> NpArray:
    out = erf(x * x.dtype.type(math.sqrt(0.5)))
    out += 1
    out *= x
    out *= 0.5
    return out


def _gelu_tanh(x: NpArray, name: str = "gelu_tanh") -> NpArray:
    out = x * x
    out *= 0.044715
    out += 1
    out *= x
    out *= GELU_SLOPES[name]
    np.tanh(out, out=out)
    out += 1
    out *= x
    out *= 0.5
    return out


def _sigmoid(x: NpArray) -> NpArray:
    out: NpArray = np.negative(x)
    # Overflow to infinity is right: one divided by it is zero.
    with np.errstate(over="ignore"):
        np.exp(out, out=out)
    out += 1
    np.divide(1, out, out=out)
    return out


def _relu(x: NpArray) -> NpArray:
    return np.maximum(x, 0)


def _relu_squared(x: NpArray) -> NpArray:
    out = _relu(x)
    out *= out
    return out


_ACTIVATIONS: dict[str, Callable[[NpArray], NpArray]] = {
    "silu": _silu,
    "gelu": _gelu,
    "gelu_tanh": _gelu_tanh,
    "gelu_fast": partial(_gelu_tanh, name="gelu_fast"),
    "relu": _relu,
    "relu_squared": _relu_squared,
    "sigmoid": _sigmoid,
}


def _activation(name: str) -> Callable[[NpArray], NpArray]:
    if name not in _ACTIVATIONS:
        raise unknown_activation(name)
    return _ACTIVATIONS[name]


def rotate(x: NpArray, cos: NpArray, sin: NpArray, *, overwrite: bool = False) -> NpArray:
    """Rotate in place if allowed: see `mi_ref.ops.ops.rotate`."""
    half = cos.shape[-1]
    cos, sin = cos[..., :, None, :], sin[..., :, None, :]
    first, second = x[..., :half], x[..., half : 2 * half]
    first_sin, second_sin = first * sin, second * sin
    out = x if overwrite else empty_like(x)
    lower, upper = out[..., :half], out[..., half : 2 * half]
    np.multiply(first, cos, out=lower)
    lower -= second_sin
    np.multiply(second, cos, out=upper)
    upper += first_sin
    if not overwrite:
        out[..., 2 * half :] = x[..., 2 * half :]
    return out
