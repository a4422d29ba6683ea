"""The forward pass of RWKV-6 and RWKV-7, once, with every tap.

A block is time mixing and channel mixing, each of the normed stream and of that of the token
before, each added. Both versions share the blocks and the recurrence
(:mod:`mi_ref.ops.recurrence`); `_inputs_6` and `_inputs_7` say what runs through it.

Source: BlinkDL, ``RWKV_v6_demo.py`` and ``rwkv_v7_numpy.py``; arXiv:2404.05892, arXiv:2503.14456.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mi_ref._typing import Array, Residual
from mi_ref.backend import Backend
from mi_ref.config.decoder import Layer, RecurrentLayer, TimeMix, TimeMix7
from mi_ref.forward.carry import Carry
from mi_ref.forward.norm import apply_norm
from mi_ref.forward.plan import Tap
from mi_ref.forward.state_taps import Terms, effective_attention, intervene
from mi_ref.forward.token_shift import Rows, rows_of
from mi_ref.hooks.sites import at
from mi_ref.ops.heads import merge_heads, split_heads
from mi_ref.ops.ops import Ops
from mi_ref.params.params import (
    ChannelMixParams,
    LowRank,
    Norm,
    RecurrentLayerParams,
    TimeMix6Params,
    TimeMix7Params,
)
from mi_ref.state.state import LayerState
from mi_ref.text.padding import Padding

# Beyond it, exp(-exp(x)) is zero in float64, and short of it exp(x) is finite in float32.
_DECAYED = 16.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every block of one pass shares."""

    ops: Ops
    backend: Backend
    rows: Rows


def surroundings(
    layers: Iterable[Layer | RecurrentLayer], padding: Padding | None, backend: Backend
) -> Surroundings | None:
    """Return what the recurrent blocks of one pass share; None if there are none."""
    if not any(isinstance(layer, RecurrentLayer) for layer in layers):
        return None
    return Surroundings(backend.ops, backend, rows_of(padding, backend))


def block(
    w: RecurrentLayerParams,
    layer: RecurrentLayer,
    carry: Carry,
    tap: Tap,
    context: Surroundings | None,
) -> Carry:
    """Return what leaves one block: its time mixing and channel mixing each add to the stream."""
    assert context is not None
    assert carry.state is not None
    ops, state, rows = context.ops, carry.state, context.rows
    resid = tap(at.resid_pre, carry.resid)
    x = apply_norm(w.ln1, layer.ln1, resid, tap, (at.ln1_scale, at.ln1_normalized), ops)
    x = tap(at.attn_in, x)
    before = tap(at.rwkv_shift, rows.shifted(x, state.attn_shift))
    out, values, wkv = _time_mix(
        w, layer.mixer, x, before, carry.first_values, state.wkv, tap, context
    )
    attn_out = tap(at.attn_out_raw, ops.linear(out, w.attn.out.weight, None))
    resid = tap(at.resid_mid, resid + tap(at.attn_out, attn_out))
    y = apply_norm(w.ln2, layer.ln2, resid, tap, (at.ln2_scale, at.ln2_normalized), ops)
    y = tap(at.mlp_in, y)
    before = tap(at.mlp_shift, rows.shifted(y, state.mlp_shift))
    mlp_out = tap(at.mlp_out, _channel_mix(w.mlp, layer, y, before, tap, context))
    first_values = carry.first_values
    if first_values is None and isinstance(layer.mixer, TimeMix7):
        first_values = values
    after = LayerState(wkv, rows.last(x), rows.last(y))
    return Carry(tap(at.resid_post, resid + mlp_out), first_values, after)


def _time_mix(
    w: RecurrentLayerParams,
    attn: TimeMix,
    x: Residual,
    before: Residual,
    first_values: Array | None,
    state: Array,
    tap: Tap,
    context: Surroundings,
) -> tuple[Residual, Array, Array]:
    """Return what the output map reads, the values, and the state after the last token."""
    ops, backend = context.ops, context.backend
    if isinstance(w.attn, TimeMix6Params):
        terms, gate = _inputs_6(w.attn, x, before, tap, context)
    else:
        terms, gate = _inputs_7(w.attn, x, before, first_values, tap, context)
    # What a position reads of itself beside the state.
    own = backend.xp.sum(terms.r * terms.k * w.attn.bonus, axis=-1, keepdims=True)
    plain_bonus = own * terms.v
    bonus = tap(at.rwkv_bonus, plain_bonus)
    values = terms.v
    terms = terms.without_pads(context.rows.mask, backend.xp)
    read, end = ops.recurrence(terms.r, terms.k, terms.v, terms.decay, terms.removal, state)
    writes, read, end = intervene(terms, read, state, end, context.rows.mask, tap, backend)
    early = terms.removal is None
    wkv = tap(at.rwkv_wkv, read + bonus if early else read)
    if tap.wants(at.rwkv_effective_attn):
        edited = None if bonus is plain_bonus else bonus
        own = own if early else None
        tap(at.rwkv_effective_attn, effective_attention(terms, writes, own, edited, backend))
    normed = _group_norm(wkv, w.attn.group_norm, attn.group_norm_eps, context)
    out = normed if early else normed + merge_heads(bonus, backend.xp)
    return ops.lay_out(out * gate, gate), values, end


def _inputs_6(
    w: TimeMix6Params, x: Residual, before: Residual, tap: Tap, context: Surroundings
) -> tuple[Terms, Residual]:
    """Return what runs through RWKV-6's recurrence, and the output gate."""
    ops, xp = context.ops, context.backend.xp
    change = before - x
    hint = x + change * w.shift

    def heads(x: Array) -> Array:
        return split_heads(x, w.bonus.shape[0], xp)

    def mixed(name: str) -> Array:
        how_much = w.shifts[name] + _through(w.shift_maps[name], hint, "tanh", context)
        return x + change * how_much

    r = tap(at.rwkv_r, heads(ops.linear(mixed("r"), w.receptance.weight, None)))
    speed = w.decay + _through(w.decay_map, mixed("w"), "tanh", context)
    decay = xp.exp(-xp.exp(xp.clip(speed, None, _DECAYED)))
    decay = tap(at.rwkv_decay, heads(decay))
    k = tap(at.rwkv_k, heads(ops.linear(mixed("k"), w.key.weight, None)))
    v = tap(at.rwkv_v, heads(ops.linear(mixed("v"), w.value.weight, None)))
    gate = ops.activation(ops.linear(mixed("g"), w.gate.weight, None), "silu")
    return Terms(r, k, v, decay, None), tap(at.rwkv_gate, gate)


def _inputs_7(
    w: TimeMix7Params,
    x: Residual,
    before: Residual,
    first_values: Array | None,
    tap: Tap,
    context: Surroundings,
) -> tuple[Terms, Residual]:
    """Return what runs through RWKV-7's recurrence, and the output gate."""
    ops, xp = context.ops, context.backend.xp
    change = before - x

    def heads(x: Array) -> Array:
        return split_heads(x, w.bonus.shape[0], xp)

    def mixed(name: str) -> Array:
        return x + change * w.shifts[name]

    r = tap(at.rwkv_r, heads(ops.linear(mixed("r"), w.receptance.weight, None)))
    speed = ops.activation(w.decay + _through(w.decay_map, mixed("w"), "tanh", context), "sigmoid")
    decay = tap(at.rwkv_decay, heads(xp.exp(-math.exp(-0.5) * speed)))
    rate = ops.activation(w.rate + _through(w.rate_map, mixed("a"), None, context), "sigmoid")
    rate = tap(at.rwkv_a, heads(rate))
    key = ops.linear(mixed("k"), w.key.weight, None)
    removal = heads(key * w.removal)
    length = xp.sqrt(xp.sum(removal * removal, axis=-1, keepdims=True))
    removal = tap(at.rwkv_kk, removal / xp.clip(length, 1e-12, None))
    key = heads(key)
    key_rate = xp.reshape(w.key_rate, w.bonus.shape)
    k = tap(at.rwkv_k, key * (1.0 + (rate - 1.0) * key_rate))
    v = heads(ops.linear(mixed("v"), w.value.weight, None))
    if w.value_mix is not None and w.value_map is not None:
        assert first_values is not None
        share = w.value_mix + _through(w.value_map, mixed("v"), None, context)
        share = heads(ops.activation(share, "sigmoid"))
        v = v + (first_values - v) * share
    v = tap(at.rwkv_v, v)
    gate = tap(at.rwkv_gate, _through(w.gate_map, mixed("g"), "sigmoid", context))
    return Terms(r, k, v, decay, (removal, removal * rate)), gate


def _channel_mix(
    w: ChannelMixParams,
    layer: RecurrentLayer,
    x: Residual,
    before: Residual,
    tap: Tap,
    context: Surroundings,
) -> Residual:
    """Return what channel mixing adds to the residual stream."""
    ops = context.ops
    change = before - x
    gate = None
    if w.gate is not None:
        gate = ops.linear(x + change * w.gate_shift, w.gate.weight, None)
        gate = tap(at.mlp_gate, ops.activation(gate, "sigmoid"))
    pre = tap(at.pre, ops.linear(x + change * w.shift, w.into.weight, None))
    post = tap(at.post, ops.activation(pre, layer.mlp.act_fn))
    out = tap(at.mlp_out_raw, ops.linear(post, w.out.weight, None))
    return out if gate is None else gate * out


def _through(w: LowRank, x: Array, middle: str | None, context: Surroundings) -> Array:
    """Send `x` through a low-rank map with an activation function in the middle."""
    ops = context.ops
    few = ops.linear(x, w.down, None)
    if middle == "tanh":
        few = context.backend.xp.tanh(few)
    elif middle is not None:
        few = ops.activation(few, middle)
    return ops.linear(few, w.up, None)


def _group_norm(x: Array, w: Norm, eps: float, context: Surroundings) -> Residual:
    """Norm each head by itself: [batch, pos, head, d_value] -> [batch, pos, d_model]."""
    ops = context.ops
    x = ops.center(x)
    normed = merge_heads(x / ops.rms_scale(x, eps), context.backend.xp) * w.weight
    return normed if w.bias is None else normed + w.bias
