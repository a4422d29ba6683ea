"""Attention on NumPy: products on the heads as they lie, and nothing computed that is masked."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

NpArray = npt.NDArray[Any]

_BLOCK = 128
# Elements that are worked on while they stay in a core's cache.
_CHUNK = 1 << 16


def causal_scores(q: NpArray, k: NpArray, scale: float) -> NpArray:
    """Score in one new array: see `mi_ref.ops.causal_scores`."""
    batch, n_query, n_heads, _ = q.shape
    n_key, n_kv_heads = k.shape[1:3]
    scores = _queries(q, n_kv_heads, scale) @ _transposed(k)[:, :, None]
    for start in range(0, n_query, _BLOCK):
        _mask(scores[..., start : start + _BLOCK, :], n_key - n_query + start)
    return scores.reshape(batch, n_heads, n_query, n_key)


def softmax(scores: NpArray, *, reuse: bool) -> NpArray:
    """Normalize block by block: see `mi_ref.ops.softmax`."""
    if not scores.flags.c_contiguous:
        scores, reuse = np.ascontiguousarray(scores), True
    out = scores if reuse else np.empty_like(scores)
    source, target = (x.reshape(-1, scores.shape[-1]) for x in (scores, out))
    step = max(1, _CHUNK // scores.shape[-1])
    for start in range(0, len(source), step):
        rows, powers = source[start : start + step], target[start : start + step]
        np.subtract(rows, rows.max(axis=-1, keepdims=True), out=powers)
        np.exp(powers, out=powers)
        powers /= powers.sum(axis=-1, keepdims=True)
    return out


def mix_values(pattern: NpArray, v: NpArray) -> NpArray:
    """Mix into feature-major heads: see `mi_ref.ops.mix_values`."""
    batch, n_heads, n_query, n_key = pattern.shape
    n_kv_heads, d_head = v.shape[2:]
    z = _empty_heads(batch, n_query, n_kv_heads, n_heads, d_head, v.dtype)
    rows = pattern.reshape(batch, n_kv_heads, n_heads // n_kv_heads, n_query, n_key)
    np.matmul(_transposed(v)[:, :, None], rows.mT, out=z)
    return _joined(z)


def causal_attention(q: NpArray, k: NpArray, v: NpArray, scale: float) -> NpArray:
    """Attend by blocks of queries, each to the keys it may see: see `mi_ref.ops.causal_attention`.

    Up to one block, this computes what `causal_scores`, `softmax` and `mix_values` would, to the
    last bit.
    """
    batch, n_query, n_heads, d_head = q.shape
    n_key, n_kv_heads = k.shape[1:3]
    if n_query <= _BLOCK:
        return mix_values(softmax(causal_scores(q, k, scale), reuse=True), v)
    queries, keys, values = _queries(q, n_kv_heads, scale), _transposed(k), _transposed(v)
    z = _empty_heads(batch, n_query, n_kv_heads, n_heads, d_head, v.dtype)
    for start in range(0, n_query, _BLOCK):
        stop = min(start + _BLOCK, n_query)
        seen = n_key - n_query + stop
        for head in range(n_kv_heads):
            scores = queries[:, head, :, start:stop] @ keys[:, head, None, :, :seen]
            _mask(scores, n_key - n_query + start)
            pattern = softmax(scores, reuse=True)
            z[:, head, :, :, start:stop] = values[:, head, None, :, :seen] @ pattern.mT
    return _joined(z)


def _queries(q: NpArray, n_kv_heads: int, scale: float) -> NpArray:
    """Group by key head and scale: [b, p, head, d] -> [b, kv_head, group, p, d]."""
    batch, n_pos, n_heads, d_head = q.shape
    grouped = q.reshape(batch, n_pos, n_kv_heads, n_heads // n_kv_heads, d_head)
    return grouped.transpose(0, 2, 3, 1, 4) * q.dtype.type(scale)


def _transposed(x: NpArray) -> NpArray:
    """View [b, p, kv_head, d] as [b, kv_head, d, p]."""
    return x.transpose(0, 2, 3, 1)


def _empty_heads(
    batch: int, n_pos: int, n_kv_heads: int, n_heads: int, d_head: int, dtype: Any
) -> NpArray:
    """Return [b, kv_head, group, d, p] whose memory lies as [kv_head, group, d, b, p]."""
    shape = (n_kv_heads, n_heads // n_kv_heads, d_head, batch, n_pos)
    return np.empty(shape, dtype).transpose(3, 0, 1, 2, 4)


def _joined(z: NpArray) -> NpArray:
    """View [b, kv_head, group, d, p] as [b, p, head, d]."""
    batch, n_kv_heads, group, d_head, n_pos = z.shape
    return z.reshape(batch, n_kv_heads * group, d_head, n_pos).transpose(0, 3, 1, 2)


def _mask(scores: NpArray, first: int) -> None:
    """Put minus infinity where key ``j`` comes after query ``first + i``."""
    n_rows = scores.shape[-2]
    scores[..., first : first + n_rows] += _future(n_rows, scores.dtype)
    scores[..., first + n_rows :] = -np.inf


@cache
def _future(size: int, dtype: Any) -> NpArray:
    """Return zeros with minus infinity above the diagonal."""
    future = np.triu(np.full((size, size), -np.inf, dtype), 1)
    future.flags.writeable = False
    return future
