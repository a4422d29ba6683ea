"""Attention on NumPy: by blocks of queries, with no copy of the heads and no wholly masked block.

The same products and sums run on the same blocks whether or not scores and pattern are looked at,
so that looking changes no bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from mi_ref.ops.ops import visible
from mi_ref_backends.numpy.memory import NpArray, empty, empty_like

_BLOCK = 128
# Elements processed at a time, so that they stay in a core's cache.
_CHUNK = 1 << 16


def attention_scores(
    q: NpArray,
    k: NpArray,
    *,
    scale: float,
    softcap: float | None,
    window: int | None,
    starts: NpArray | None,
) -> NpArray:
    """Compute scores in one new array: see `mi_ref.ops.ops.attention_scores`."""
    batch, n_query, n_heads, _ = q.shape
    n_key, n_kv_heads = k.shape[1:3]
    queries, keys = _queries(q, n_kv_heads, scale), _transposed(k)
    scores = empty((batch, n_kv_heads, n_heads // n_kv_heads, n_query, n_key), q.dtype)
    for start, stop, seen in _blocks(n_query, n_key):
        block = scores[..., start:stop, :]
        np.matmul(queries[..., start:stop, :], keys[:, :, None, :, :seen], out=block[..., :seen])
        _cap_and_mask(
            block[..., :seen], softcap, _mask(stop - start, seen, window, starts, q.dtype)
        )
        block[..., seen:] = -np.inf
    return scores.reshape(batch, n_heads, n_query, n_key)


def soft_cap(x: NpArray, limit: float, *, overwrite: bool = False) -> NpArray:
    """Cap in one array: see `mi_ref.ops.ops.soft_cap`."""
    out: NpArray = np.divide(x, x.dtype.type(limit), out=x if overwrite else empty_like(x))
    np.tanh(out, out=out)
    out *= x.dtype.type(limit)
    return out


def attention_pattern(scores: NpArray, *, overwrite: bool = False) -> NpArray:
    """Normalize over the visible keys: see `mi_ref.ops.ops.attention_pattern`."""
    n_query, n_key = scores.shape[-2:]
    pattern = scores if overwrite else empty(scores.shape, scores.dtype)
    for start, stop, seen in _blocks(n_query, n_key):
        hidden = scores[..., start:stop, seen:]
        if hidden.size and hidden.max() != -np.inf:
            seen = n_key
        _softmax(scores[..., start:stop, :seen], pattern[..., start:stop, :seen])
        pattern[..., start:stop, seen:] = 0
    return pattern


def mix_values(pattern: NpArray, v: NpArray) -> NpArray:
    """Mix into feature-major heads: see `mi_ref.ops.ops.mix_values`."""
    batch, n_heads, n_query, n_key = pattern.shape
    n_kv_heads, d_head = v.shape[2:]
    z = _empty_heads(batch, n_query, n_kv_heads, n_heads, d_head, v.dtype)
    grouped = pattern.reshape(batch, n_kv_heads, n_heads // n_kv_heads, n_query, n_key)
    values = _transposed(v)[:, :, None]
    for start, stop, seen in _blocks(n_query, n_key):
        rows = grouped[..., start:stop, :]
        z[..., start:stop] = values[..., :seen] @ rows[..., :seen].mT
        if rows[..., seen:].any():
            z[..., start:stop] += values[..., seen:] @ rows[..., seen:].mT
    return _joined(z)


def attention(
    q: NpArray,
    k: NpArray,
    v: NpArray,
    *,
    scale: float,
    softcap: float | None,
    window: int | None,
    starts: NpArray | None,
) -> NpArray:
    """Attend block by block, a few heads at a time: see `mi_ref.ops.ops.attention`."""
    batch, n_query, n_heads, d_head = q.shape
    n_key, n_kv_heads = k.shape[1:3]
    queries, keys, values = _queries(q, n_kv_heads, scale), _transposed(k), _transposed(v)
    z = _empty_heads(batch, n_query, n_kv_heads, n_heads, d_head, v.dtype)
    for start, stop, seen in _blocks(n_query, n_key):
        mask = _mask(stop - start, seen, window, starts, q.dtype)
        step = max(1, _CHUNK * n_kv_heads // (n_heads * (stop - start) * seen))
        for first in range(0, n_kv_heads, step):
            heads = slice(first, first + step)
            block = queries[:, heads, :, start:stop] @ keys[:, heads, None, :, :seen]
            _cap_and_mask(block, softcap, mask)
            _softmax(block, block)
            z[:, heads, ..., start:stop] = values[:, heads, None, :, :seen] @ block.mT
    return _joined(z)


def softmax(x: NpArray, *, overwrite: bool = False) -> NpArray:
    """Normalize over the last axis: see `mi_ref.ops.ops.softmax`."""
    out = x if overwrite else np.empty_like(x)
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
    """Yield the first query of each block, its end, and the end of the keys that it sees."""
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
    """Return an array [b, kv_head, group, d, p] whose memory order is [kv_head, group, d, b, p]."""
    shape = (n_kv_heads, n_heads // n_kv_heads, d_head, batch, n_pos)
    return empty(shape, dtype).transpose(3, 0, 1, 2, 4)


def _joined(z: NpArray) -> NpArray:
    """View [b, kv_head, group, d, p] as [b, p, head, d]."""
    batch, n_kv_heads, group, d_head, n_pos = z.shape
    return z.reshape(batch, n_kv_heads * group, d_head, n_pos).transpose(0, 3, 1, 2)


def _cap_and_mask(block: NpArray, softcap: float | None, mask: NpArray) -> None:
    """Cap scores in place, and hide those of the last keys as `mask` says."""
    if softcap is not None:
        soft_cap(block, softcap, overwrite=True)
    block[..., -mask.shape[-1] :] += mask


def _mask(
    n_rows: int, n_keys: int, window: int | None, starts: NpArray | None, dtype: Any
) -> NpArray:
    """Return minus infinity at the keys that each of the last `n_rows` positions does not see.

    It is zero at the others, and holds only the last keys where all queries see those before.
    """
    if starts is not None:
        hidden = _hidden(n_rows, n_keys, window, starts, dtype)
        return hidden[:, None, None]  # [b, q, k] -> [b, kv_head, group, q, k]
    no_window = window is None or window >= n_keys
    return _shared_mask(n_rows, n_rows if no_window else n_keys, window, dtype)


@lru_cache(maxsize=64)
def _shared_mask(n_rows: int, n_keys: int, window: int | None, dtype: Any) -> NpArray:
    """Return the mask of every row of a batch, made once for all layers."""
    hidden = _hidden(n_rows, n_keys, window, None, dtype)
    hidden.flags.writeable = False
    return hidden


def _hidden(
    n_rows: int, n_keys: int, window: int | None, starts: NpArray | None, dtype: Any
) -> NpArray:
    keys = np.arange(n_keys)
    seen = visible(keys[n_keys - n_rows :], keys, window=window, starts=starts, xp=np)
    hidden: NpArray = np.where(seen, dtype.type(0), dtype.type(-np.inf))
    return hidden
