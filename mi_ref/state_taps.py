"""Looking at and changing what is written into the state and what it holds.

The recurrence is linear in the state and in what is written, so a change of either travels on by
itself: it is carried from token to token beside the state and added to what is read. What nobody
changed keeps every bit, and looking costs the recurrence nothing of its speed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mi_ref._typing import Array, Bool, Float, Namespace
from mi_ref.backend import Backend
from mi_ref.plan import Tap
from mi_ref.sites import at


@dataclass(frozen=True, slots=True)
class Terms:
    """What runs through the recurrence of one layer; see `mi_ref.recurrence_ops`."""

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
    """Return what edits changed of the writes, if any, and what is read and handed on with them.

    Parameters
    ----------
    terms : Terms
        Of the recurrence, without pads.
    read, end : Array
        What it gave.
    start : Array
        The state before the first position.
    mask : Array or None
        Where there are tokens: edits at pads do nothing.
    tap : Tap
        Of the layer.
    backend : Backend
        Of all arrays.
    """
    change = None
    if tap.wants(at.rwkv_write):
        own = terms.k[..., :, None] * terms.v[..., None, :]
        edited = tap(at.rwkv_write, own)
        if edited is not own:
            change = _where(mask, edited - own, backend.xp)
    if change is None and not tap.wants(at.rwkv_state):
        return change, read, end
    read, end = _carry(terms, change, read, start, end, mask, tap, backend)
    return change, read, end


def _carry(
    terms: Terms,
    change: Array | None,
    read: Array,
    start: Array,
    end: Array,
    mask: Bool[Array, "batch pos"] | None,
    tap: Tap,
    backend: Backend,
) -> tuple[Array, Array]:
    """Go through the positions with the state and what edits add to it."""
    xp, steps = backend.xp, tap.steps(at.rwkv_state)
    state, extra = start, xp.zeros_like(start)
    extra_reads = []
    for pos in range(terms.k.shape[1]):
        earlier, extra = extra, terms.step(extra, pos)
        if change is not None:
            extra = extra + change[:, pos, ...]
        if steps is not None:
            write = terms.k[:, pos, :, :, None] * terms.v[:, pos, :, None, :]
            state = terms.step(state, pos) + write
            now = (state + extra)[:, None, ...]
            edited = steps(pos, now)
            if edited is not now:
                here = None if mask is None else mask[:, pos : pos + 1]
                extra = extra + _where(here, edited - now, xp)[:, 0, ...]
        # RWKV-6 reads the state before its update, RWKV-7 after it.
        seen = earlier if terms.removal is None else extra
        extra_reads.append(terms.r[:, pos, :, None, :] @ seen)
    if steps is not None:
        steps.finish()
        if change is None and not steps.edits:
            return read, end
    # [b, head, 1, d_value] of each position -> [b, pos, head, d_value]
    added = xp.permute_dims(xp.concat(extra_reads, axis=2), (0, 2, 1, 3))
    return backend.ops.lay_out(read + added, read), end + extra


def effective_attention(
    terms: Terms,
    change: Float[Array, "batch pos head d_key d_value"] | None,
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
        Of the recurrence.
    change : Array or None
        What edits changed of the writes.
    own : Array or None
        How much of its own value a position reads as a bonus that is part of `rwkv_wkv`.
    bonus : Array or None
        What edits changed of that bonus.
    backend : Backend
        Of all arrays.
    """
    xp = backend.xp
    batch, n_pos, n_heads, d_key = terms.k.shape
    like = {"dtype": terms.k.dtype, "device": terms.k.device}
    k = terms.k if change is None else terms.k + _along(change, terms.v[..., None, :], xp)
    # The recurrence of unit vectors in place of values gives its own matrix.
    unit = xp.eye(n_pos, **like)[None, :, None, :]
    unit = xp.broadcast_to(unit, (batch, n_pos, n_heads, n_pos))
    nothing = xp.zeros((batch, n_heads, d_key, n_pos), **like)
    seen, _ = backend.ops.recurrence(terms.r, k, unit, terms.decay, terms.removal, nothing)
    if own is not None:
        own = own if bonus is None else own + _along(bonus, terms.v, xp)[..., None]
        seen = seen + own * unit
    return xp.permute_dims(seen, (0, 2, 1, 3))


def _along(x: Array, v: Array, xp: Namespace) -> Array:
    """Return ``c`` of the part ``c v`` of `x` along the last axis; 0 where `v` is."""
    length = xp.sum(v * v, axis=-1)
    none = length == 0.0
    share = xp.sum(x * v, axis=-1) / xp.where(none, xp.ones_like(length), length)
    return xp.where(none, xp.zeros_like(share), share)


def _where(mask: Array | None, x: Array, xp: Namespace) -> Array:
    """Return `x`, and zero where `mask` is false."""
    if mask is None:
        return x
    return xp.where(xp.reshape(mask, (*mask.shape, 1, 1, 1)), x, xp.zeros_like(x))
