"""Mistakes in RWKV-6 and RWKV-7, each with the case that must show it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from mi_ref import Model
from mi_ref.config.decoder import LayerNorm
from mi_ref.params.params import LowRank, Norm
from tests.mistakes.mutations import Mistake, Mutation, both, but_heads, config, operation, params
from tests.mistakes.mutations_rwkv import (
    Position,
    by_token,
    channel_mix,
    rewritten,
    structure,
    time_mix,
)


def source(old: str, new: str) -> Mutation:
    """Replace one passage of the forward pass by `new`."""
    return rewritten({old: new})


def group_norm_eps(value: float) -> Mutation:
    return structure(lambda layer: replace(layer, mixer=replace(layer.mixer, group_norm_eps=value)))


def norm_of_the_embedding(model: Model) -> Model:
    """Norm an embedding that was trained without a norm."""
    ones = np.ones(model.cfg.d_model, model.params.embed.dtype)
    norm = Norm(ones, np.zeros_like(ones))
    kind = config(ln_embed=LayerNorm(eps=1e-5))
    return both(kind, params(lambda w: replace(w, ln_embed=norm)))(model)


def heads_by_width(model: Model) -> Model:
    """Take the width of a head for the number of heads."""

    def turned(layer: Any) -> Any:
        old = layer.mixer
        return replace(layer, mixer=replace(old, n_heads=old.d_head, d_head=old.n_heads))

    bonus = time_mix(bonus=lambda w: w.bonus.reshape(w.bonus.shape[::-1]))
    return both(structure(turned), bonus)(model)


def in_order(slot: str, names: str, stored: str) -> dict[str, Any]:
    """Name tensors `stored` in one order by the `names` of another."""
    return {
        slot: lambda w: {
            name: getattr(w, slot)[own] for name, own in zip(names, stored, strict=True)
        }
    }


def silent(name: str) -> dict[str, Any]:
    """Let a low-rank map, or each of several, add nothing."""

    def quiet(w: LowRank) -> LowRank:
        return LowRank(w.down, np.zeros_like(w.up))

    def change(w: Any) -> Any:
        old = getattr(w, name)
        return quiet(old) if isinstance(old, LowRank) else {key: quiet(x) for key, x in old.items()}

    return {name: change}


def turned(w: Any) -> dict[str, Any]:
    return {name: 1 - share for name, share in w.shifts.items()}


def removed_last(state: Any, x: Position) -> Any:
    """Remove from the state after the write instead of before it."""
    after = x.decay * state + x.k * x.v
    return after - x.strength * (x.removal.mT @ after)


FLA, FINCH = "rwkvg", "wkvrg"
SHIFT = "rows.shifted(x, state.attn_shift)"
OUT = "out = normed if early else normed + merge_heads(bonus, backend.xp)"
KEPT = "if first_values is None and isinstance(layer.mixer, TimeMix7):"

OF_BOTH = (
    Mistake("norm of the embedding left out", "rwkv6", "resid_pre", config(ln_embed=None)),
    Mistake("norm of the embedding without bias", "rwkv6-fla", "resid_pre",
            params(lambda w: replace(w, ln_embed=Norm(w.ln_embed.weight, None)))),  # type: ignore[union-attr]
    Mistake("norm of an embedding that has none", "rwkv7-plain", "resid_pre",
            norm_of_the_embedding),
    Mistake("layer norm of RWKV not centred", "rwkv7-plain", "ln1_scale",
            operation(center=lambda right: lambda x: x)),
    Mistake("layer norm epsilon 1e-5 for 2e-5", "rwkv7-plain", "ln1_scale",
            structure(lambda layer: replace(layer, ln1=LayerNorm(eps=1e-5)))),
    Mistake("last norm of RWKV without bias", "rwkv6", "unembed_in",
            params(lambda w: replace(w, ln_final=Norm(w.ln_final.weight, None)))),
    Mistake("width of heads taken for their number", "rwkv6", "rwkv_r", heads_by_width),
    Mistake("token shift of the stream before its norm", "rwkv6-fla", "rwkv_shift",
            source(SHIFT, "rows.shifted(resid, state.attn_shift)")),
    Mistake("token shift brings the last token to the first", "rwkv7", "rwkv_shift",
            source(SHIFT, "context.backend.xp.roll(x, 1, axis=1)")),
    Mistake("token shift of what time mixing reads, in channel mixing", "rwkv7", "mlp_shift",
            source("rows.shifted(y,", "rows.shifted(x,")),
    Mistake("group-norm epsilon that of the other norms", "rwkv6-fla", "attn_out_raw",
            group_norm_eps(1e-5)),
    Mistake("group-norm epsilon by the divisor, not its square", "rwkv6", "attn_out_raw",
            group_norm_eps(8e-5)),
    Mistake("group-norm epsilon 64e-5 for any width of heads", "rwkv7", "attn_out_raw",
            group_norm_eps(64e-5)),
    Mistake("group-norm epsilon given, and ignored", "rwkv7-plain", "attn_out_raw",
            group_norm_eps(8e-5)),
    Mistake("group norm not centred", "rwkv6", "attn_out_raw", operation(center=but_heads)),
    Mistake("group norm over all heads at once", "rwkv7", "attn_out_raw",
            source("normed = _group_norm(wkv, ",
                   "normed = _group_norm(backend.xp.reshape(wkv, (*x.shape[:2], 1, -1)), ")),
    Mistake("group norm without bias", "rwkv7", "attn_out_raw",
            time_mix(group_norm=lambda w: Norm(w.group_norm.weight, None))),
    Mistake("gate before the group norm", "rwkv6", "attn_out_raw", rewritten({
        "normed = _group_norm(wkv, ":
            "normed = _group_norm(wkv * backend.xp.reshape(gate, wkv.shape), ",
        "ops.lay_out(out * gate, gate)": "ops.lay_out(out, gate)",
    })),
    Mistake("channel mixing without its gate", "rwkv6", "mlp_out",
            source("return out if gate is None else gate * out", "return out")),
    Mistake("gate of channel mixing by SiLU", "rwkv6-fla", "mlp_gate",
            source('tap(at.mlp_gate, ops.activation(gate, "sigmoid"))',
                   'tap(at.mlp_gate, ops.activation(gate, "silu"))')),
    Mistake("mixes of channel mixing exchanged", "rwkv6", "mlp_gate",
            channel_mix(shift=lambda w: w.gate_shift, gate_shift=lambda w: w.shift)),
    Mistake("channel mixing mixes the other way round", "rwkv7", "pre",
            channel_mix(shift=lambda w: 1 - w.shift)),
    Mistake("ReLU not squared", "rwkv7", "post",
            structure(lambda layer: replace(layer, mlp=replace(layer.mlp, act_fn="relu")))),
    Mistake("SiLU for squared ReLU", "rwkv6", "post",
            structure(lambda layer: replace(layer, mlp=replace(layer.mlp, act_fn="silu")))),
)  # fmt: skip

OF_6 = (
    Mistake("five mixes in the other layout's order", "rwkv6", "rwkv_r",
            time_mix(**in_order("shift_maps", FLA, FINCH))),
    Mistake("five mixes and their biases in the other layout's order", "rwkv6-fla", "rwkv_r",
            time_mix(**in_order("shift_maps", FINCH, FLA), **in_order("shifts", FINCH, FLA))),
    Mistake("mixes that do not depend on the input", "rwkv6", "rwkv_r",
            time_mix(**silent("shift_maps"))),
    Mistake("mixes by maps of the input, unmixed", "rwkv6-fla", "rwkv_r",
            time_mix(shift=lambda w: np.zeros_like(w.shift))),
    Mistake("mixes without tanh", "rwkv6", "rwkv_r",
            source('_through(w.shift_maps[name], hint, "tanh", context)',
                   "_through(w.shift_maps[name], hint, None, context)")),
    Mistake("decay without the outer exponential", "rwkv6", "rwkv_decay",
            source("xp.exp(-xp.exp(xp.clip(speed, None, _DECAYED)))",
                   "xp.exp(-xp.clip(speed, None, _DECAYED))")),
    Mistake("decay without what its map adds", "rwkv6-fla", "rwkv_decay",
            time_mix(**silent("decay_map"))),
    Mistake("gate by the sigmoid", "rwkv6", "rwkv_gate",
            source('w.gate.weight, None), "silu")', 'w.gate.weight, None), "sigmoid")')),
    Mistake("bonus left out", "rwkv6", "rwkv_wkv",
            source("read + bonus if early else read", "read")),
    Mistake("bonus of one for the learned one", "rwkv6-fla", "rwkv_bonus",
            time_mix(bonus=lambda w: np.ones_like(w.bonus))),
    Mistake("state read after its update", "rwkv6", "rwkv_wkv",
            by_token(reads=lambda old, new, x: new)),
    Mistake("state read after its decay", "rwkv6-fla", "rwkv_wkv",
            by_token(reads=lambda old, new, x: x.decay * old)),
    Mistake("what is written decays at once", "rwkv6", "rwkv_wkv",
            by_token(update=lambda state, x: x.decay * (state + x.k * x.v))),
    Mistake("what is read scaled as attention is", "rwkv6", "rwkv_wkv", by_token(scale=4**-0.5)),
    Mistake("effective attention without the bonus", "rwkv6", "rwkv_effective_attn",
            source("own = own if early else None", "own = None")),
)  # fmt: skip

OF_7 = (
    Mistake("six mixes the other way round", "rwkv7", "rwkv_r", time_mix(shifts=turned)),
    Mistake("six mixes with a and g exchanged", "rwkv7", "rwkv_a",
            time_mix(**in_order("shifts", "rwkvag", "rwkvga"))),
    Mistake("decay down to exp(-1) for exp(-exp(-1/2))", "rwkv7", "rwkv_decay",
            source("-math.exp(-0.5) * speed", "-speed")),
    Mistake("in-context learning rate by tanh in the middle", "rwkv7", "rwkv_a",
            source('w.rate_map, mixed("a"), None,', 'w.rate_map, mixed("a"), "tanh",')),
    Mistake("removal key from the mixed key", "rwkv7", "rwkv_kk",
            source("removal = heads(key * w.removal)",
                   "key_rate = xp.reshape(w.key_rate, w.bonus.shape)\n    removal = heads(key"
                   " * w.removal) * (1.0 + (rate - 1.0) * key_rate)")),
    Mistake("removal key not normalised", "rwkv7-plain", "rwkv_kk",
            source("removal / xp.clip(length, 1e-12, None)", "removal")),
    Mistake("removal key normalised over all heads", "rwkv7", "rwkv_kk",
            source("xp.sum(removal * removal, axis=-1, keepdims=True)",
                   "xp.sum(removal * removal, axis=(-2, -1), keepdims=True)")),
    Mistake("removal key without its gain", "rwkv7", "rwkv_kk",
            time_mix(removal=lambda w: np.ones_like(w.removal))),
    Mistake("learning rate not applied to the key", "rwkv7", "rwkv_k",
            time_mix(key_rate=lambda w: np.zeros_like(w.key_rate))),
    Mistake("learning rate applied to the key in full", "rwkv7-plain", "rwkv_k",
            time_mix(key_rate=lambda w: np.ones_like(w.key_rate))),
    Mistake("value residual from the layer before", "rwkv7", "rwkv_v",
            source(KEPT, "if isinstance(layer.mixer, TimeMix7):")),
    Mistake("value residual left out", "rwkv7-plain", "rwkv_v",
            time_mix(value_mix=lambda w: None, value_map=lambda w: None)),
    Mistake("value residual the other way round", "rwkv7", "rwkv_v",
            source("v = v + (first_values - v) * share",
                   "v = first_values + (v - first_values) * share")),
    Mistake("gate by tanh in the middle", "rwkv7", "rwkv_gate",
            source('w.gate_map, mixed("g"), "sigmoid",', 'w.gate_map, mixed("g"), "tanh",')),
    Mistake("bonus from the value alone", "rwkv7", "rwkv_bonus",
            source("plain_bonus = own * terms.v", "plain_bonus = terms.v * w.attn.bonus")),
    Mistake("bonus before the group norm", "rwkv7", "rwkv_wkv",
            source("read + bonus if early else read", "read + bonus")),
    Mistake("bonus left out, RWKV-7", "rwkv7-plain", "attn_out_raw", source(OUT, "out = normed")),
    Mistake("bonus added after the gate", "rwkv7", "attn_out_raw",
            source("ops.lay_out(out * gate, gate)",
                   "normed * gate + merge_heads(bonus, backend.xp)")),
    Mistake("removal without the learning rate", "rwkv7", "rwkv_state",
            source("(removal, removal * rate)", "(removal, removal)")),
    Mistake("learning rate where the state is read", "rwkv7-plain", "rwkv_state",
            source("(removal, removal * rate)", "(removal * rate, removal)")),
    Mistake("state read before its update", "rwkv7", "rwkv_wkv",
            by_token(reads=lambda old, new, x: old)),
    Mistake("removed from the decayed state", "rwkv7", "rwkv_wkv",
            by_token(update=lambda state, x: x.decay * state + x.k * x.v
                     - x.strength * (x.removal.mT @ (x.decay * state)))),
    Mistake("removed after the write", "rwkv7-plain", "rwkv_wkv",
            by_token(update=removed_last)),
    Mistake("effective attention as if nothing were removed", "rwkv7", "rwkv_effective_attn",
            source("effective_attention(terms, ",
                   "effective_attention(Terms(terms.r, terms.k, terms.v, terms.decay, None), ")),
)  # fmt: skip

MISTAKES = OF_BOTH + OF_6 + OF_7
