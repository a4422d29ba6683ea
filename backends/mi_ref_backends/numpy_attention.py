"""Attention on NumPy: products on the heads as they lie, by blocks of queries, no masked block.

Whether scores and pattern are looked at or not, the same products and sums run on the same blocks,
so that looking changes no bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np

from mi_ref_backends.numpy_memory import NpArray, empty

_BLOCK = 128
# Elements that are worked on while they stay in a core's cache.
_CHUNK = 1 << 16


def causal_scores(q: NpArray, k: NpArray, scale: float) -> NpArray:
    """Score in one new array: see `mi_ref.ops.causal_scores`."""
    batch, n_query, n_heads, _ = q.shape
    n_key, n_kv_heads = k.shape[1:3]
    queries, keys = _queries(q, n_kv_heads, scale), _transposed(k)
    scores = empty((batch, n_kv_heads, n_heads // n_kv_heads, n_query, n_key), q.dtype)
    for start, stop, seen in _blocks(n_query, n_key):
        block = scores[..., start:stop, :]
        np.matmul(queries[..., start:stop, :], keys[:, :, None, :, :seen], out=block[..., :seen])
        _mask(block[..., :seen])
        block[..., seen:] = -np.inf
    return scores.reshape(batch, n_heads, n_query, n_key)


def attention_pattern(scores: NpArray, *, reuse: bool, masked: bool) -> NpArray:
    """Normalize what is visible: see `mi_ref.ops.attention_pattern`."""
    n_query, n_key = scores.shape[-2:]
    pattern = scores if reuse else empty(scores.shape, scores.dtype)
    for start, stop, seen in _blocks(n_query, n_key):
        hidden = scores[..., start:stop, seen:]
        if hidden.size and not masked and hidden.max() != -np.inf:
            seen = n_key
        _softmax(scores[..., start:stop, :seen], pattern[..., start:stop, :seen])
        pattern[..., start:stop, seen:] = 0
    return pattern


def mix_values(pattern: NpArray, v: NpArray, *, masked: bool) -> NpArray:
    """Mix into feature-major heads: see `mi_ref.ops.mix_values`."""
    batch, n_heads, n_query, n_key = pattern.shape
    n_kv_heads, d_head = v.shape[2:]
    z = _empty_heads(batch, n_query, n_kv_heads, n_heads, d_head, v.dtype)
    grouped = pattern.reshape(batch, n_kv_heads, n_heads // n_kv_heads, n_query, n_key)
    values = _transposed(v)[:, :, None]
    for start, stop, seen in _blocks(n_query, n_key):
        rows = grouped[..., start:stop, :]
        z[..., start:stop] = values[..., :seen] @ rows[..., :seen].mT
        if not masked and rows[..., seen:].any():
            z[..., start:stop] += values[..., seen:] @ rows[..., seen:].mT
    return _joined(z)


def causal_attention(q: NpArray, k: NpArray, v: NpArray, scale: float) -> NpArray:
    """Attend block by block, some heads at a time: see `mi_ref.ops.causal_attention`."""
    batch, n_query, n_heads, d_head = q.shape
    n_key, n_kv_heads = k.shape[1:3]
    queries, keys, values = _queries(q, n_kv_heads, scale), _transposed(k), _transposed(v)
    z = _empty_heads(batch, n_query, n_kv_heads, n_heads, d_head, v.dtype)
    for start, stop, seen in _blocks(n_query, n_key):
        step = max(1, _CHUNK * n_kv_heads // (n_heads * (stop - start) * seen))
        for first in range(0, n_kv_heads, step):
            heads = slice(first, first + step)
            block = queries[:, heads, :, start:stop] @ keys[:, heads, None, :, :seen]
            _mask(block)
            _softmax(block, block)
            z[:, heads, ..., start:stop] = values[:, heads, None, :, :seen] @ block.mT
    return _joined(z)


def softmax(x: NpArray, *, reuse: bool) -> NpArray:
    """Normalize the last axis: see `mi_ref.ops.softmax`."""
    out = x if reuse else np.empty_like(x)
    _softmax(x, out)
    return out


def _softmax(x: NpArray, out: NpArray) -> None:
    if x.size > _CHUNK and x.ndim > 2:
        for part, target in zip(x, out, strict=True):
            _softmax(part, target)
        return
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    out /= out.sum(axis=-1, keepdims=True)


def _blocks(n_query: int, n_key: int) -> Iterator[tuple[int, int, int]]:
    """Yield first query, end of queries, and end of the keys that the last of them sees."""
    for start in range(0, n_query, _BLOCK):
        stop = min(start + _BLOCK, n_query)
        yield start, stop, n_key - n_query + stop


def _queries(q: NpArray, n_kv_heads: int, scale: float) -> NpArray:
    """Group by key head and scale: [b, p, head, d] -> [b, kv_head, group, p, d]."""
    batch, n_pos, n_heads, d_head = q.shape
    grouped = q.reshape(batch, n_pos, n_kv_heads, n_heads // n_kv_heads, d_head)
    scaled: NpArray = grouped.transpose(0, 2, 3, 1, 4) * q.dtype.type(scale)
    return scaled


def _transposed(x: NpArray) -> NpArray:
    """View [b, p, kv_head, d] as [b, kv_head, d, p]."""
    return x.transpose(0, 2, 3, 1)


def _empty_heads(
    batch: int, n_pos: int, n_kv_heads: int, n_heads: int, d_head: int, dtype: Any
) -> NpArray:
    """Return [b, kv_head, group, d, p] whose memory lies as [kv_head, group, d, b, p]."""
    shape = (n_kv_heads, n_heads // n_kv_heads, d_head, batch, n_pos)
    return empty(shape, dtype).transpose(3, 0, 1, 2, 4)


def _joined(z: NpArray) -> NpArray:
    """View [b, kv_head, group, d, p] as [b, p, head, d]."""
    batch, n_kv_heads, group, d_head, n_pos = z.shape
    return z.reshape(batch, n_kv_heads * group, d_head, n_pos).transpose(0, 3, 1, 2)


def _mask(block: NpArray) -> None:
    """Put minus infinity after each query's own key, which for the last query is the last key."""
    n_rows = block.shape[-2]
    block[..., -n_rows:] += _future(n_rows, block.dtype)


@cache
def _future(size: int, dtype: Any) -> NpArray:
    """Return zeros with minus infinity above the diagonal."""
    future = np.triu(np.full((size, size), -np.inf, dtype), 1)
    future.flags.writeable = False
    return future
