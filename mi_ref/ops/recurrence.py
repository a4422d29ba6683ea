"""The recurrence of RWKV-6 and RWKV-7 in array API terms, computed chunk by chunk.

Token by token, the recurrence is ``S ← diag(w) S - b (aᵀ S) + k vᵀ`` (without removal, ``a`` and
``b`` are absent). Within a chunk, everything but the state at its start is a matrix product: with
``u = aᵀ S`` at each position, every position adds ``k vᵀ - b uᵀ``, and position t sees what s added
with the weight ``q_t · (w between s and t) k_s``. Those products of decays are built by doubling,
only from factors that lie between the two positions. So nothing is ever divided by a decay, and
strong decay underflows to zero, as it should.
"""

from __future__ import annotations

from collections.abc import Iterator

from mi_ref._typing import Array, Float, Namespace

_CHUNK = 16
# Elements of one input processed at a time, so that they stay in a core's cache.
_GROUP = 1 << 16


def recurrence(
    r: Float[Array, "batch pos head d_key"],
    k: Float[Array, "batch pos head d_key"],
    v: Float[Array, "batch pos head d_value"],
    decay: Float[Array, "batch pos head d_key"],
    removal: tuple[Array, Array] | None,
    state: Float[Array, "batch head d_key d_value"],
    *,
    xp: Namespace,
) -> tuple[Float[Array, "batch pos head d_value"], Float[Array, "batch head d_key d_value"]]:
    """Return what each position reads, and the state after the last position.

    Parameters
    ----------
    r, k, v : Array
        Receptance, key and value.
    decay : Array
        Factors of the state's rows, any real numbers.
    removal : tuple of Array, or None
        The removal key, and the same times the learning rate (RWKV-7), both shaped like `k`; each
        position then reads the state after its own update. None (RWKV-6): it reads the state
        before its update.
    state : Array
        The state before the first position.
    xp
        Namespace.
    """
    batch, n_pos, n_heads, d_key = k.shape
    chunk = min(_CHUNK, 1 << (n_pos - 1).bit_length())
    step = chunk * max(_GROUP // (batch * n_heads * d_key * chunk), 1)
    reads = []
    for start in range(0, n_pos, step):
        part = slice(start, min(start + step, n_pos))
        pair = None if removal is None else (removal[0][:, part, ...], removal[1][:, part, ...])
        inputs = [x[:, part, ...] for x in (r, k, v, decay)]
        read, state = _group(inputs, pair, state, chunk, xp)
        reads.append(read)
    return xp.concat(reads, axis=1), state


def _group(
    inputs: list[Array],
    removal: tuple[Array, Array] | None,
    state: Array,
    chunk: int,
    xp: Namespace,
) -> tuple[Array, Array]:
    """Run the recurrence over some consecutive chunks."""
    n_pos = inputs[0].shape[1]
    r, k, v = (_cut(x, chunk, 0.0, xp) for x in inputs[:3])
    decay = _cut(inputs[3], chunk, 1.0, xp)
    if removal is None:
        prefix, suffix, total, seen = _between(r[..., None, :], k[..., None, :], decay, xp)
        constant = seen[0][0] @ v
        parts = zip(*(_chunks(x) for x in (constant, r * prefix, total)), strict=True)
        added = _chunks((k * suffix).mT @ v)
        reads = []
        for (own, reader, kept), new in zip(parts, added, strict=True):
            reads.append(own + reader @ state)
            state = kept[..., None] * state + new
        return _join(reads, n_pos, xp), state
    a, b = (_cut(x, chunk, 0.0, xp) for x in removal)
    # Reading after the update gives the decayed read before it, plus what the position adds.
    late = r * decay
    queries, keys = xp.stack([a, late], axis=-2), xp.stack([k, b], axis=-2)
    prefix, suffix, total, seen = _between(queries, keys, decay, xp)
    (a_k, a_b), (r_k, r_b) = seen
    r_k = r_k + _diagonal(xp.sum(r * k, axis=-1), xp)
    r_b = r_b + _diagonal(xp.sum(r * b, axis=-1), xp)
    # u = (I + a_b)⁻¹ (a_k v + (a prefix) S); the first part does not depend on the state.
    solve = _unit_inverse(a_b, xp)
    from_v, from_state = solve @ a_k, solve @ (a * prefix)
    own_u, own_read = from_v @ v, (r_k - r_b @ from_v) @ v
    reader = late * prefix - r_b @ from_state
    added, removed = (k * suffix).mT @ v, (b * suffix).mT
    arrays = (own_u, from_state, own_read, reader, total, added, removed)
    reads = []
    for u, taker, own, read_by, kept, new, gone in zip(*map(_chunks, arrays), strict=True):
        reads.append(own + read_by @ state)
        state = kept[..., None] * state + new - gone @ (u + taker @ state)
    return _join(reads, n_pos, xp), state


def _between(
    queries: Array, keys: Array, decay: Array, xp: Namespace
) -> tuple[Array, Array, Array, list[list[Array]]]:
    """Return how decays act inside each chunk.

    Parameters
    ----------
    queries, keys : Array
        ``[batch, head, chunk, pos, kind, d_key]``.
    decay : Array
        ``[batch, head, chunk, pos, d_key]``.
    xp
        Namespace.

    Returns
    -------
    tuple
        The products of the decays before each position, of those after it, and of all of them;
        then, for each kind of query and of key, ``query_t · (decays between) key_s`` where s is
        before t and zero elsewhere, ``[…, t, s]``.
    """
    *lead, size, n_queries, d_key = queries.shape
    n_keys = keys.shape[-2]
    prefix = suffix = xp.ones_like(decay)
    total = decay
    seen = xp.zeros((*lead, size, 1, n_queries, 1, n_keys), dtype=decay.dtype, device=decay.device)
    width = 1
    while width < size:
        # Two blocks of `width` positions make one: [first, second] along axis -3 or so.
        pairs = (*lead, size // (2 * width), 2)
        before = xp.reshape(prefix, (*pairs, width, d_key))
        after = xp.reshape(suffix, (*pairs, width, d_key))
        all_of = xp.reshape(total, (*pairs, 1, d_key))
        first_after, second_before = after[..., 0, :, :], before[..., 1, :, :]
        q = xp.reshape(queries, (*pairs, width, n_queries, d_key))[..., 1, :, :, :]
        key = xp.reshape(keys, (*pairs, width, n_keys, d_key))[..., 0, :, :, :]
        rows = xp.reshape(q * second_before[..., None, :], (*pairs[:-1], -1, d_key))
        columns = xp.reshape(key * first_after[..., None, :], (*pairs[:-1], -1, d_key))
        cross = xp.reshape(rows @ columns.mT, (*pairs[:-1], width, n_queries, width, n_keys))
        blocks = xp.reshape(seen, (*pairs, width, n_queries, width, n_keys))
        first, second = blocks[..., 0, :, :, :, :], blocks[..., 1, :, :, :, :]
        upper = xp.concat([first, xp.zeros_like(first)], axis=-2)
        seen = xp.concat([upper, xp.concat([cross, second], axis=-2)], axis=-4)
        all_first, all_second = all_of[..., 0, :, :], all_of[..., 1, :, :]
        prefix = xp.concat([before[..., 0, :, :], second_before * all_first], axis=-2)
        suffix = xp.concat([first_after * all_second, after[..., 1, :, :]], axis=-2)
        total = all_first * all_second
        width *= 2
    seen = xp.reshape(seen, (*lead, size, n_queries, size, n_keys))
    kinds = [[seen[..., :, i, :, j] for j in range(n_keys)] for i in range(n_queries)]
    shape = (*lead, size, d_key)
    total = xp.reshape(total, (*lead, d_key))
    return xp.reshape(prefix, shape), xp.reshape(suffix, shape), total, kinds


def _unit_inverse(lower: Array, xp: Namespace) -> Array:
    """Return ``(I + lower)⁻¹`` for strictly lower triangular matrices, by doubling."""
    *lead, size, _ = lower.shape
    inverse = xp.ones((*lead, size, 1, 1), dtype=lower.dtype, device=lower.device)
    width = 1
    while width < size:
        n_pairs = size // (2 * width)
        grid = xp.reshape(lower, (*lead, n_pairs, 2, width, n_pairs, 2, width))
        cross = xp.stack([grid[..., i, 1, :, i, 0, :] for i in range(n_pairs)], axis=-3)
        pairs = xp.reshape(inverse, (*lead, n_pairs, 2, width, width))
        first, second = pairs[..., 0, :, :], pairs[..., 1, :, :]
        upper = xp.concat([first, xp.zeros_like(first)], axis=-1)
        corner = -(second @ (cross @ first))
        inverse = xp.concat([upper, xp.concat([corner, second], axis=-1)], axis=-2)
        width *= 2
    return xp.reshape(inverse, (*lead, size, size))


def _diagonal(x: Array, xp: Namespace) -> Array:
    """Return matrices with `x` on the diagonal."""
    return x[..., None] * xp.eye(x.shape[-1], dtype=x.dtype, device=x.device)


def _cut(x: Array, chunk: int, filler: float, xp: Namespace) -> Array:
    """Cut positions into whole chunks: [b, pos, head, d] -> [b, head, chunk, pos, d]."""
    batch, n_pos, n_heads, width = x.shape
    if lacking := -n_pos % chunk:
        shape = (batch, lacking, n_heads, width)
        x = xp.concat([x, xp.full(shape, filler, dtype=x.dtype, device=x.device)], axis=1)
    by_head = xp.permute_dims(x, (0, 2, 1, 3))
    return xp.reshape(by_head, (batch, n_heads, -1, chunk, width))


def _chunks(x: Array) -> Iterator[Array]:
    """Yield the chunks of [batch, head, chunk, …]."""
    return (x[:, :, number, ...] for number in range(x.shape[2]))


def _join(reads: list[Array], n_pos: int, xp: Namespace) -> Array:
    """Join chunks [b, head, pos, d] to [b, pos, head, d], without the filled-up positions."""
    joined = xp.permute_dims(xp.concat(reads, axis=2), (0, 2, 1, 3))
    return joined[:, :n_pos, ...]
