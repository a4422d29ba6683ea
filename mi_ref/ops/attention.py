"""The operations of attention in array API terms; :mod:`mi_ref.ops.ops` gathers them.

Queries stand at the last of the keys' positions: with as many queries as keys, that is all of them;
with fewer, the keys before them belong to a past that was computed earlier.
"""

from __future__ import annotations

from mi_ref._typing import Array, Bool, Float, Int, Namespace


def visible(
    queries: Int[Array, " query_pos"],
    keys: Int[Array, " key_pos"],
    *,
    window: int | None,
    starts: Int[Array, " batch"] | None,
    xp: Namespace,
) -> Bool[Array, "*batch query_pos key_pos"]:
    """Return which keys each query sees: this is the one definition of it.

    Parameters
    ----------
    queries, keys : Array
        Their positions, counted alike from anywhere.
    window : int or None
        Number of keys that a query sees, itself included; None for all keys up to itself.
    starts : Array or None
        Position at which each row's tokens begin. Keys before that are pads, which only they
        themselves see.
    xp
        Namespace.

    Returns
    -------
    Array
        With a leading axis ``batch`` if `starts` is given.
    """
    rows, columns = queries[:, None], keys[None, :]
    seen = columns <= rows
    if window is not None:
        seen = xp.logical_and(seen, columns > rows - window)
    if starts is None:
        return seen
    begun = xp.logical_or(columns >= starts[:, None, None], columns == rows)
    return xp.logical_and(seen, begun)


def soft_cap(
    x: Float[Array, "*shape"], limit: float, *, overwrite: bool = False, xp: Namespace
) -> Float[Array, "*shape"]:
    """Return ``limit * tanh(x / limit)``."""
    return xp.tanh(x / limit) * limit


def attention_scores(
    q: Float[Array, "batch query_pos head d_head"],
    k: Float[Array, "batch key_pos kv_head d_head"],
    *,
    scale: float,
    softcap: float | None,
    window: int | None,
    starts: Int[Array, " batch"] | None,
    xp: Namespace,
) -> Float[Array, "batch head query_pos key_pos"]:
    """Return ``scale * q·k``, soft-capped, and minus infinity where the query does not see the key.

    The cap comes before the mask: capping minus infinity would give ``-softcap``.

    Parameters
    ----------
    q, k : Array
        Queries and keys as used in the dot product: normed and rotated.
    scale : float
        Multiplies the dot product.
    softcap : float or None
        Bound on a score; see `soft_cap`.
    window, starts
        See `visible`. Positions count from the first key.
    xp
        Namespace.
    """
    batch, n_query, n_heads, d_head = q.shape
    n_key, n_key_heads = k.shape[1], k.shape[2]
    group = n_heads // n_key_heads
    # [b, p, h, d] -> [b, kv, group * p, d]: one product for all queries that share a key head
    queries = xp.reshape(q, (batch, n_query, n_key_heads, group, d_head))
    queries = xp.permute_dims(queries, (0, 2, 3, 1, 4))
    queries = xp.reshape(queries, (batch, n_key_heads, group * n_query, d_head))
    scores = queries @ xp.permute_dims(k, (0, 2, 3, 1)) * scale
    if softcap is not None:
        scores = soft_cap(scores, softcap, xp=xp)
    scores = xp.reshape(scores, (batch, n_heads, n_query, n_key))
    keys = xp.arange(n_key, device=q.device)
    seen = visible(keys[n_key - n_query :], keys, window=window, starts=starts, xp=xp)
    # [q, k] or [b, q, k] -> the same with an axis for the heads
    return xp.where(seen[..., None, :, :], scores, -xp.inf)


def softmax(
    scores: Float[Array, "*rows key_pos"], *, overwrite: bool = False, xp: Namespace
) -> Float[Array, "*rows key_pos"]:
    """Return the softmax over the last axis."""
    powers = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return powers / xp.sum(powers, axis=-1, keepdims=True)


def attention_pattern(
    scores: Float[Array, "batch head query_pos key_pos"],
    *,
    overwrite: bool = False,
    xp: Namespace,
) -> Float[Array, "batch head query_pos key_pos"]:
    """Return the softmax over keys."""
    return softmax(scores, xp=xp)


def mix_values(
    pattern: Float[Array, "batch head query_pos key_pos"],
    v: Float[Array, "batch key_pos kv_head d_head"],
    *,
    xp: Namespace,
) -> Float[Array, "batch query_pos head d_head"]:
    """Return each head's values weighted by its pattern."""
    batch, n_heads, n_query, n_key = pattern.shape
    n_key_heads, d_head = v.shape[2], v.shape[3]
    group = n_heads // n_key_heads
    rows = xp.reshape(pattern, (batch, n_key_heads, group * n_query, n_key))
    mixed = rows @ xp.permute_dims(v, (0, 2, 1, 3))
    mixed = xp.reshape(mixed, (batch, n_heads, n_query, d_head))
    return xp.permute_dims(mixed, (0, 2, 1, 3))


def attention(
    q: Float[Array, "batch query_pos head d_head"],
    k: Float[Array, "batch key_pos kv_head d_head"],
    v: Float[Array, "batch key_pos kv_head d_head"],
    *,
    scale: float,
    softcap: float | None,
    window: int | None,
    starts: Int[Array, " batch"] | None,
    xp: Namespace,
) -> Float[Array, "batch query_pos head d_head"]:
    """Return the whole of attention, for when neither scores nor pattern are needed."""
    scores = attention_scores(
        q, k, scale=scale, softcap=softcap, window=window, starts=starts, xp=xp
    )
    return mix_values(softmax(scores, xp=xp), v, xp=xp)
