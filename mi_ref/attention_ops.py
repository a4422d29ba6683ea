"""The operations of attention in array API terms; see :mod:`mi_ref.ops`, which gathers them."""

from __future__ import annotations

from mi_ref._typing import Array, Float, Int, Namespace


def soft_cap(
    x: Float[Array, "*shape"], limit: float, *, reuse: bool, xp: Namespace
) -> Float[Array, "*shape"]:
    """Return ``limit * tanh(x / limit)``. `reuse` gives up `x`."""
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
    """Return ``scale * q·k``, soft-capped, minus infinity where the query does not see the key.

    The cap comes before the mask: capping minus infinity would give ``-softcap``.

    Parameters
    ----------
    q, k : Array
        As they are dotted.
    scale : float
        Multiplies the dot product.
    softcap : float or None
        Bound on a score; see `soft_cap`.
    window : int or None
        Keys that a query sees, itself included; None for all up to itself.
    starts : Array or None
        Where each row's tokens begin: no query sees keys before that, but itself.
    """
    batch, n_query, n_heads, d_head = q.shape
    n_key, n_key_heads = k.shape[1], k.shape[2]
    group = n_heads // n_key_heads
    # [b, p, h, d] -> [b, kv, group * p, d]: the queries that share a key head in one product
    queries = xp.reshape(q, (batch, n_query, n_key_heads, group, d_head))
    queries = xp.permute_dims(queries, (0, 2, 3, 1, 4))
    queries = xp.reshape(queries, (batch, n_key_heads, group * n_query, d_head))
    scores = queries @ xp.permute_dims(k, (0, 2, 3, 1)) * scale
    if softcap is not None:
        scores = soft_cap(scores, softcap, reuse=True, xp=xp)
    scores = xp.reshape(scores, (batch, n_heads, n_query, n_key))
    rows = xp.arange(n_query, device=q.device)[:, None] + (n_key - n_query)
    columns = xp.arange(n_key, device=q.device)[None, :]
    visible = columns <= rows
    if window is not None:
        visible = xp.logical_and(visible, columns > rows - window)
    if starts is not None:
        begun = xp.logical_or(columns >= starts[:, None, None], columns == rows)
        visible = xp.logical_and(visible, begun)[:, None, :, :]
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
    """Return attention as a whole, for when nobody looks at scores or pattern."""
    scores = attention_scores(
        q, k, scale=scale, softcap=softcap, window=window, starts=starts, xp=xp
    )
    return mix_values(softmax(scores, reuse=True, xp=xp), v, masked=True, xp=xp)
