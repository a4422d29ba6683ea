"""Why a model lacks a hook site, as its structure has it."""

from __future__ import annotations

from mi_ref.config.decoder import DecoderConfig, Experts, GatedMLP, Layer, RecurrentLayer, TimeMix6
from mi_ref.hooks.sites import LayerSite, Point, at

_ATTENTION = (
    at.q, at.k, at.v, at.q_norm_scale, at.q_norm_normalized, at.k_norm_scale, at.k_norm_normalized,
    at.rot_q, at.rot_k, at.attn_scores, at.pattern, at.z, at.result,
)  # fmt: skip
_RECURRENCE = (
    at.rwkv_shift, at.rwkv_r, at.rwkv_decay, at.rwkv_a, at.rwkv_kk, at.rwkv_k, at.rwkv_v,
    at.rwkv_gate, at.rwkv_bonus, at.rwkv_write, at.rwkv_state, at.rwkv_wkv, at.rwkv_effective_attn,
    at.mlp_shift, at.mlp_gate,
)  # fmt: skip

_NO_NORM = "{reads}'s input has no norm; its output has one, at at.{post}_scale"
_NO_POST = "{writes}'s output is added without a norm"


def absent_global(cfg: DecoderConfig) -> dict[Point, str]:
    """Return the sites outside the blocks that a decoder lacks, each with the reason."""
    if cfg.learned_positions:
        return {}
    if cfg.recurrent:
        return {at.pos_embed: "the order of tokens is in the recurrent state"}
    return {at.pos_embed: "positions enter by rotation, at at.rot_q and at.rot_k"}


def absent_in_layer(layer: Layer | RecurrentLayer) -> dict[LayerSite, str]:
    """Return the sites that a block lacks, each with the reason."""
    return _recurrent(layer) if isinstance(layer, RecurrentLayer) else _transformer(layer)


def _recurrent(layer: RecurrentLayer) -> dict[LayerSite, str]:
    reasons = {
        "this recurrent model has no attention; see at.rwkv_r, at.rwkv_k, at.rwkv_v and"
        " at.rwkv_effective_attn": _ATTENTION,
        _NO_POST.format(writes="time mixing"): (at.ln1_post_scale, at.ln1_post_normalized),
        _NO_POST.format(writes="channel mixing"): (at.ln2_post_scale, at.ln2_post_normalized),
        "channel mixing has one branch, at.pre": (at.pre_linear,),
        "channel mixing is not a mixture of experts": (at.router_logits, at.expert_weights),
    }  # fmt: skip
    if isinstance(layer.mixer, TimeMix6):
        reasons["RWKV-6 only adds to the state; RWKV-7 also removes"] = (at.rwkv_a, at.rwkv_kk)
    if not layer.mlp.gated:
        reasons["channel mixing has no gate in RWKV-7"] = (at.mlp_gate,)
    return {site: reason for reason, sites in reasons.items() for site in sites}


def _transformer(layer: Layer) -> dict[LayerSite, str]:
    absent: dict[LayerSite, str] = dict.fromkeys(
        _RECURRENCE,
        "this model has attention and no recurrent state; see at.q, at.k, at.v and at.pattern",
    )

    def lacks(reason: str, *sites: LayerSite) -> None:
        absent.update(dict.fromkeys(sites, reason))

    if layer.ln1 is None:
        reason = _NO_NORM.format(reads="attention", post="ln1_post")
        lacks(reason, at.ln1_scale, at.ln1_normalized)
    if layer.ln1_post is None:
        lacks(_NO_POST.format(writes="attention"), at.ln1_post_scale, at.ln1_post_normalized)
    if layer.ln2 is None and layer.order == "parallel":
        lacks(
            "the MLP reads attention's normed input: see at.ln1_scale",
            at.ln2_scale,
            at.ln2_normalized,
        )
    elif layer.ln2 is None:
        reason = _NO_NORM.format(reads="the MLP", post="ln2_post")
        lacks(reason, at.ln2_scale, at.ln2_normalized)
    if layer.ln2_post is None:
        lacks(_NO_POST.format(writes="the MLP"), at.ln2_post_scale, at.ln2_post_normalized)
    if layer.order == "parallel":
        lacks(
            "attention and MLP read the same stream in parallel; use at.resid_pre (what both read)"
            " or at.resid_post (after both wrote)",
            at.resid_mid,
        )
    if layer.attn.qk_norm is None:
        sites = (at.q_norm_scale, at.q_norm_normalized, at.k_norm_scale, at.k_norm_normalized)
        lacks("queries and keys have no norm", *sites)
    if layer.attn.rotary is None:
        lacks(
            "there is no rotary embedding: the dot product is that of at.q and at.k",
            at.rot_q,
            at.rot_k,
        )
    if isinstance(layer.mlp, Experts):
        reason = "each token has neurons in its own few experts; see at.expert_weights"
        lacks(reason, at.pre, at.pre_linear, at.post)
    else:
        lacks("the MLP is not a mixture of experts", at.router_logits, at.expert_weights)
        if not isinstance(layer.mlp, GatedMLP):
            lacks("the MLP has no gate: at.pre is its only branch", at.pre_linear)
    return absent
