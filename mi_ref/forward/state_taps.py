"""Looking at and changing what is written into the state and what it holds.

Whoever asks has the state carried from token to token beside the recurrence. A head's matrix that
an edit has changed is read from there; what nobody changed keeps every bit of the recurrence, and
looking costs it nothing of its speed. The difference alone could be carried too, since all is
linear, but what a knockout leaves is then lost in the rounding of what it took away.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mi_ref._typing import Array, Bool, Float, Namespace
from mi_ref.backend import Backend
from mi_ref.forward.plan import Tap
from mi_ref.forward.steps import Steps
from mi_ref.hooks.sites import at


@dataclass(frozen=True, slots=True)
class Terms:
    """What runs through the recurrence of one layer; see `mi_ref.ops.recurrence`."""

    r: Float[Array, "batch pos head d_key"]
    k: Float[Array, "batch pos head d_key"]
    v: Float[Array, "batch pos head d_value"]
    decay: Float[Array, "batch pos head d_key"]
    removal: tuple[Array, Array] | None
    """Removal key, and the same times the learning rate; None where nothing is removed."""

    def without_pads(self, mask: Bool[Array, "batch pos"] | None, xp: Namespace) -> Terms:
        """Return terms that leave the state as it is wherever `mask` is false."""
        if mask is None:
            return self
        there = mask[:, :, None, None]
        zeros, removal = xp.zeros_like(self.k), self.removal
        return replace(
            self,
            k=xp.where(there, self.k, zeros),
            decay=xp.where(there, self.decay, xp.ones_like(self.decay)),
            removal=None if removal is None else (
                xp.where(there, removal[0], zeros), xp.where(there, removal[1], zeros)
            ),
        )  # fmt: skip

    def step(self, state: Array, pos: int) -> Array:
        """Return the state after position `pos` if that wrote nothing."""
        after = self.decay[:, pos, :, :, None] * state
        if self.removal is None:
            return after
        key, strength = (x[:, pos, :, :, None] for x in self.removal)
        return after - strength * (key.mT @ state)


def intervene(
    terms: Terms,
    read: Float[Array, "batch pos head d_value"],
    start: Float[Array, "batch head d_key d_value"],
    end: Float[Array, "batch head d_key d_value"],
    mask: Bool[Array, "batch pos"] | None,
    tap: Tap,
    backend: Backend,
) -> tuple[Array | None, Array, Array]:
    """Return edited writes, if any, and what is read and left behind with all edits.

    Parameters
    ----------
    terms : Terms
        The recurrence's terms, without pads.
    read, end : Array
        What it gave.
    start : Array
        The state before the first position.
    mask : Array or None
        Where there are tokens: edits at pads do nothing.
    tap : Tap
        The layer's tap.
    backend : Backend
        The library that holds all arrays.
    """
    writes = None
    if tap.wants(at.rwkv_write):
        own = terms.k[..., :, None] * terms.v[..., None, :]
        edited = tap(at.rwkv_write, own)
        if edited is not own:
            writes = _where(mask, edited, own, backend.xp)
    if writes is None and not tap.wants(at.rwkv_state):
        return writes, read, end
    read, end = _carry(terms, writes, read, start, end, mask, tap, backend)
    return writes, read, end


def _carry(
    terms: Terms,
    writes: Array | None,
    read: Array,
    start: Array,
    end: Array,
    mask: Bool[Array, "batch pos"] | None,
    tap: Tap,
    backend: Backend,
) -> tuple[Array, Array]:
    """Go through the positions with the state; read it anew where an edit has changed it."""
    xp, steps = backend.xp, tap.steps(at.rwkv_state)
    changing = writes is not None or (steps is not None and steps.edits)
    early, state = terms.removal is None, start
    # Which matrices [batch, head] an edit has changed so far.
    changed = xp.zeros(start.shape[:2], dtype=xp.bool, device=start.device)
    anew, where = [], []
    for pos in range(terms.k.shape[1]):
        earlier, before = state, changed
        own = terms.k[:, pos, :, :, None] * terms.v[:, pos, :, None, :]
        write = own if writes is None else writes[:, pos, ...]
        plain = terms.step(state, pos) + write
        state = plain if steps is None else _passed(steps, pos, plain, mask, xp)
        if changing:
            differs = xp.logical_or(write != own, state != plain)
            changed = xp.logical_or(changed, xp.any(differs, axis=(-2, -1)))
            # RWKV-6 reads the state before its update, RWKV-7 after it.
            anew.append(terms.r[:, pos, :, None, :] @ (earlier if early else state))
            where.append(before if early else changed)
    if steps is not None:
        steps.finish()
    if not changing:
        return read, end
    # [b, head, 1, d_value] of each position -> [b, pos, head, d_value]
    reads = xp.permute_dims(xp.concat(anew, axis=2), (0, 2, 1, 3))
    reads = xp.where(xp.stack(where, axis=1)[..., None], reads, read)
    return backend.ops.lay_out(reads, read), xp.where(changed[..., None, None], state, end)


def _passed(steps: Steps, pos: int, state: Array, mask: Array | None, xp: Namespace) -> Array:
    """Return what flows on of the state after position `pos`."""
    now = state[:, None, ...]
    edited = steps(pos, now)
    if edited is now:
        return state
    here = None if mask is None else mask[:, pos : pos + 1]
    return _where(here, edited, now, xp)[:, 0, ...]


def effective_attention(
    terms: Terms,
    writes: Float[Array, "batch pos head d_key d_value"] | None,
    own: Float[Array, "batch pos head 1"] | None,
    bonus: Float[Array, "batch pos head d_value"] | None,
    backend: Backend,
) -> Float[Array, "batch head query_pos key_pos"]:
    """Return how much of each position's value every position reads.

    Exact, signed, and of this call's positions only: what an initial state adds is left out, and
    so are edits of the state itself. Edited writes and bonuses count by their part along the value,
    which is all of them if they were only scaled.

    Parameters
    ----------
    terms : Terms
        The recurrence's terms.
    writes : Array or None
        If they were edited.
    own : Array or None
        How much of its own value a position reads as a bonus that is part of `rwkv_wkv`.
    bonus : Array or None
        If it was edited.
    backend : Backend
        The library that holds all arrays.
    """
    xp = backend.xp
    batch, n_pos, n_heads, d_key = terms.k.shape
    like = {"dtype": terms.k.dtype, "device": terms.k.device}
    k = terms.k if writes is None else _along(writes, terms.k, terms.v[..., None, :], xp)
    # The recurrence of unit vectors in place of values gives its own matrix.
    unit = xp.eye(n_pos, **like)[None, :, None, :]
    unit = xp.broadcast_to(unit, (batch, n_pos, n_heads, n_pos))
    nothing = xp.zeros((batch, n_heads, d_key, n_pos), **like)
    seen, _ = backend.ops.recurrence(terms.r, k, unit, terms.decay, terms.removal, nothing)
    if own is not None:
        if bonus is not None:
            own = _along(bonus, own[..., 0], terms.v, xp)[..., None]
        seen = seen + own * unit
    return xp.permute_dims(seen, (0, 2, 1, 3))


def _along(x: Array, share: Array, v: Array, xp: Namespace) -> Array:
    """Return ``c`` of the part ``c v`` of `x` along the last axis: `share`, bit for bit, if x is
    ``share v``; 0 where `v` is and `x` is not.
    """
    length = xp.sum(v * v, axis=-1)
    none = length == 0.0
    found = xp.sum(x * v, axis=-1) / xp.where(none, xp.ones_like(length), length)
    found = xp.where(none, xp.zeros_like(found), found)
    return xp.where(xp.all(x == share[..., None] * v, axis=-1), share, found)


def _where(mask: Array | None, x: Array, otherwise: Array, xp: Namespace) -> Array:
    """Return `x`, and `otherwise` where `mask` is false."""
    if mask is None:
        return x
    return xp.where(xp.reshape(mask, (*mask.shape, 1, 1, 1)), x, otherwise)
