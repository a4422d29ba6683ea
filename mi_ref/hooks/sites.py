"""Hook sites: every place of a forward pass that can be read and changed, as values.

``at.resid_post`` is a site, ``at.resid_post[5]`` a point: the site in one layer. Names, axes and
meanings are TransformerLens'; ``str`` gives its spelling. :mod:`~mi_ref.hooks.names` reads it.
"""

from __future__ import annotations

import copyreg
from typing import Any

from mi_ref.hooks.points import (
    GlobalSite as GlobalSite,
    LayerPoint as LayerPoint,
    LayerSite as LayerSite,
    LayerSpan as LayerSpan,
    Point as Point,
    Site as Site,
)

_RESID = ("batch", "pos", "d_model")
_SCALE = ("batch", "pos", "1")
_HEADS = ("batch", "pos", "head", "d_head")
_KV_HEADS = ("batch", "pos", "kv_head", "d_head")
_SCORES = ("batch", "head", "query_pos", "key_pos")
_HEAD_SCALE = ("batch", "pos", "head", "1")
_KV_HEAD_SCALE = ("batch", "pos", "kv_head", "1")
_NEURONS = ("batch", "pos", "d_mlp")
_EXPERTS = ("batch", "pos", "expert")
_KEYS = ("batch", "pos", "head", "d_key")
_VALUES = ("batch", "pos", "head", "d_value")
_STATE = ("batch", "pos", "head", "d_key", "d_value")


class Sites:
    """Every site of a decoder, in forward order."""

    # fmt: off
    embed = GlobalSite("embed", "hook_embed", _RESID,
        doc="Token embedding, after the family's embedding scale if it has one.")
    pos_embed = GlobalSite("pos_embed", "hook_pos_embed", _RESID,
        doc="Learned embedding of each position.")
    resid_pre = LayerSite("resid_pre", "blocks.{layer}.hook_resid_pre", _RESID,
        doc="Residual stream entering the block.")
    ln1_scale = LayerSite("ln1_scale", "blocks.{layer}.ln1.hook_scale", _SCALE,
        doc="Denominator of the norm before attention.")
    ln1_normalized = LayerSite("ln1_normalized", "blocks.{layer}.ln1.hook_normalized", _RESID,
        doc="resid_pre (centred, for a layer norm) over ln1_scale, before gain and bias.")
    attn_in = LayerSite("attn_in", "blocks.{layer}.attn.hook_in", _RESID,
        doc="What attention or time mixing reads, after gain and bias.")
    rwkv_shift = LayerSite("rwkv_shift", "blocks.{layer}.rwkv.hook_shift", _RESID,
        doc="What token shift gives each position: attn_in of the token before, zeros at the "
            "first.")
    rwkv_r = LayerSite("rwkv_r", "blocks.{layer}.rwkv.hook_r", _HEADS,
        doc="Receptance: what reads the state.")
    rwkv_decay = LayerSite("rwkv_decay", "blocks.{layer}.rwkv.hook_decay", _KEYS,
        doc="Factor by which each position multiplies the state's rows, from 0 (forget) to 1 "
            "(keep).")
    rwkv_a = LayerSite("rwkv_a", "blocks.{layer}.rwkv.hook_a", _KEYS,
        doc="In-context learning rate: how much of what the state holds under rwkv_kk is "
            "removed; it also scales the key.")
    rwkv_kk = LayerSite("rwkv_kk", "blocks.{layer}.rwkv.hook_kk", _KEYS,
        doc="Removal key, of length one per head: what is removed from the state before writing.")
    rwkv_k = LayerSite("rwkv_k", "blocks.{layer}.rwkv.hook_k", _HEADS,
        doc="Key as it is written, after its mix with rwkv_a if there is one.")
    rwkv_v = LayerSite("rwkv_v", "blocks.{layer}.rwkv.hook_v", _HEADS,
        doc="Value as it is written, after its mix with layer 0's if there is one.")
    rwkv_gate = LayerSite("rwkv_gate", "blocks.{layer}.rwkv.hook_gate", _RESID,
        doc="Factor of the recurrence's normed output.")
    rwkv_bonus = LayerSite("rwkv_bonus", "blocks.{layer}.rwkv.hook_bonus", _VALUES,
        doc="What a position reads of itself beside the state: part of rwkv_wkv in RWKV-6, added "
            "after the group norm in RWKV-7.")
    rwkv_write = LayerSite("rwkv_write", "blocks.{layer}.rwkv.hook_write", _STATE, lazy=True,
        doc="What each position writes into the state: rwkv_k by rwkv_v; computed only when "
            "asked for.")
    rwkv_state = LayerSite(
        "rwkv_state", "blocks.{layer}.rwkv.hook_state", _STATE, lazy=True, by_position=True,
        doc="State after each position; computed only when asked for. An edit is called once for "
            "each position, with that position alone, and later positions read what it returns.")
    rwkv_wkv = LayerSite("rwkv_wkv", "blocks.{layer}.rwkv.hook_wkv", _VALUES,
        doc="The recurrence's output, before the group norm.")
    rwkv_effective_attn = LayerSite(
        "rwkv_effective_attn", "blocks.{layer}.rwkv.hook_effective_attn", _SCORES,
        editable=False, lazy=True,
        doc="How much of each position's rwkv_v is in rwkv_wkv, signed; computed only when asked "
            "for.")
    q = LayerSite("q", "blocks.{layer}.attn.hook_q", _HEADS,
        doc="Queries with bias, before their norm and rotary embedding.")
    k = LayerSite("k", "blocks.{layer}.attn.hook_k", _KV_HEADS,
        doc="Keys with bias, before their norm and rotary embedding; not repeated for groups.")
    v = LayerSite("v", "blocks.{layer}.attn.hook_v", _KV_HEADS,
        doc="Values with bias; not repeated for groups.")
    q_norm_scale = LayerSite("q_norm_scale", "blocks.{layer}.attn.q_norm.hook_scale", _HEAD_SCALE,
        doc="Denominator of the norm of queries.")
    q_norm_normalized = LayerSite(
        "q_norm_normalized", "blocks.{layer}.attn.q_norm.hook_normalized", _HEADS,
        doc="q over q_norm_scale, before the gain.")
    k_norm_scale = LayerSite(
        "k_norm_scale", "blocks.{layer}.attn.k_norm.hook_scale", _KV_HEAD_SCALE,
        doc="Denominator of the norm of keys.")
    k_norm_normalized = LayerSite(
        "k_norm_normalized", "blocks.{layer}.attn.k_norm.hook_normalized", _KV_HEADS,
        doc="k over k_norm_scale, before the gain.")
    rot_q = LayerSite("rot_q", "blocks.{layer}.attn.hook_rot_q", _HEADS,
        doc="Queries after norm and rotary embedding, as used in the dot product.")
    rot_k = LayerSite("rot_k", "blocks.{layer}.attn.hook_rot_k", _KV_HEADS,
        doc="Keys after norm and rotary embedding, as used in the dot product.")
    attn_scores = LayerSite("attn_scores", "blocks.{layer}.attn.hook_attn_scores", _SCORES,
        doc="Scaled, soft-capped and masked (minus infinity): the softmax's input.")
    pattern = LayerSite("pattern", "blocks.{layer}.attn.hook_pattern", _SCORES,
        doc="Attention probabilities.")
    z = LayerSite("z", "blocks.{layer}.attn.hook_z", _HEADS,
        doc="Values weighted by the pattern, before W_O.")
    result = LayerSite(
        "result", "blocks.{layer}.attn.hook_result", ("batch", "pos", "head", "d_model"), lazy=True,
        doc="Each head's own output through its slice of W_O; computed only when asked for.")
    attn_out_raw = LayerSite("attn_out_raw", "blocks.{layer}.attn.hook_out", _RESID,
        doc="W_O's output with bias, before any norm after it.")
    ln1_post_scale = LayerSite("ln1_post_scale", "blocks.{layer}.ln1_post.hook_scale", _SCALE,
        doc="Denominator of the norm after attention.")
    ln1_post_normalized = LayerSite(
        "ln1_post_normalized", "blocks.{layer}.ln1_post.hook_normalized", _RESID,
        doc="attn_out_raw over ln1_post_scale, before the gain.")
    attn_out = LayerSite("attn_out", "blocks.{layer}.hook_attn_out", _RESID,
        doc="What attention adds to the residual stream: after any norm of it.")
    resid_mid = LayerSite("resid_mid", "blocks.{layer}.hook_resid_mid", _RESID,
        doc="Residual stream between attention and MLP.")
    ln2_scale = LayerSite("ln2_scale", "blocks.{layer}.ln2.hook_scale", _SCALE,
        doc="Denominator of the norm before the MLP.")
    ln2_normalized = LayerSite("ln2_normalized", "blocks.{layer}.ln2.hook_normalized", _RESID,
        doc="What the norm reads (centred, for a layer norm) over ln2_scale, before gain and bias.")
    mlp_in = LayerSite("mlp_in", "blocks.{layer}.mlp.hook_in", _RESID,
        doc="What the MLP reads, after gain and bias.")
    mlp_shift = LayerSite("mlp_shift", "blocks.{layer}.mlp.hook_shift", _RESID,
        doc="What token shift gives each position: mlp_in of the token before, zeros at the first.")
    mlp_gate = LayerSite("mlp_gate", "blocks.{layer}.mlp.hook_gate", _RESID,
        doc="Factor of mlp_out_raw in channel mixing.")
    router_logits = LayerSite("router_logits", "blocks.{layer}.mlp.hook_router_logits", _EXPERTS,
        doc="The router's score of each expert, before the softmax.")
    expert_weights = LayerSite("expert_weights", "blocks.{layer}.mlp.hook_expert_weights", _EXPERTS,
        doc="Factor of each expert's output; zero for experts that are not chosen.")
    pre = LayerSite("pre", "blocks.{layer}.mlp.hook_pre", _NEURONS,
        doc="Gate branch, or the only one, before the activation function.")
    pre_linear = LayerSite("pre_linear", "blocks.{layer}.mlp.hook_pre_linear", _NEURONS,
        doc="Up branch of a gated MLP.")
    post = LayerSite("post", "blocks.{layer}.mlp.hook_post", _NEURONS,
        doc="The neurons: what the down projection reads.")
    mlp_out_raw = LayerSite("mlp_out_raw", "blocks.{layer}.mlp.hook_out", _RESID,
        doc="Down projection's output with bias, before any norm after it.")
    ln2_post_scale = LayerSite("ln2_post_scale", "blocks.{layer}.ln2_post.hook_scale", _SCALE,
        doc="Denominator of the norm after the MLP.")
    ln2_post_normalized = LayerSite(
        "ln2_post_normalized", "blocks.{layer}.ln2_post.hook_normalized", _RESID,
        doc="mlp_out_raw over ln2_post_scale, before the gain.")
    mlp_out = LayerSite("mlp_out", "blocks.{layer}.hook_mlp_out", _RESID,
        doc="What the MLP adds to the residual stream: after any norm of it.")
    resid_post = LayerSite("resid_post", "blocks.{layer}.hook_resid_post", _RESID,
        doc="Residual stream leaving the block.")
    ln_final_scale = GlobalSite("ln_final_scale", "ln_final.hook_scale", _SCALE,
        doc="Denominator of the final norm.")
    ln_final_normalized = GlobalSite("ln_final_normalized", "ln_final.hook_normalized", _RESID,
        doc="Final residual stream (centred, for a layer norm) over ln_final_scale, before the "
            "gain.")
    unembed_in = GlobalSite("unembed_in", "unembed.hook_in", _RESID,
        doc="What the unembedding reads: after the final norm's gain and bias.")
    logits = GlobalSite("logits", "unembed.hook_out", ("batch", "pos", "d_vocab"),
        doc="The unembedding's output, before a final soft-cap; ``run.logits`` is after it.")
    # fmt: on


at = Sites()
"""The sites: ``at.embed``, ``at.resid_post[5]``, ``at.pattern[2:8]``, …"""

ALL_SITES: tuple[Site, ...] = tuple(
    site for site in vars(Sites).values() if isinstance(site, GlobalSite | LayerSite)
)
"""Every site in forward order."""

LAZY = frozenset(site for site in ALL_SITES if site.lazy)
"""Sites that are computed only if something asks for them."""

DERIVED = frozenset(site for site in ALL_SITES if not site.editable)
"""Sites that nothing reads: they can be captured but not edited."""


def _reduced(site: Site) -> tuple[Any, ...]:
    options = (site.editable, site.lazy, site.by_position)
    return _restore, (type(site), site.name, site.string, site.axes, site.doc, options)


def _restore(
    kind: type[GlobalSite] | type[LayerSite],
    name: str,
    string: str,
    axes: tuple[str, ...],
    doc: str,
    options: tuple[bool, bool, bool],
) -> Site:
    """Unpickle a site: the one of `at` if it is that one, so that identity survives."""
    editable, lazy, by_position = options
    made = kind(name, string, axes, doc, editable=editable, lazy=lazy, by_position=by_position)
    own = getattr(at, name, None)
    return own if isinstance(own, GlobalSite | LayerSite) and own == made else made


# Pickle and copy ask this table: points.py need not know of `at`.
copyreg.pickle(GlobalSite, _reduced)
copyreg.pickle(LayerSite, _reduced)
