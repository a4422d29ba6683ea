"""Why a model lacks a hook site: the reason that its structure gives."""

from __future__ import annotations

from mi_ref.config import DecoderConfig, Experts, GatedMLP, Layer
from mi_ref.sites import LayerSite, Point, at

_NO_NORM = "nothing norms what {reads} reads; {writes} is normed instead, at at.{post}_scale"
_NO_POST = "what {writes} writes is added as it is"


def absent_global(cfg: DecoderConfig) -> dict[Point, str]:
    """Return the sites outside the blocks that a decoder lacks, each with the reason."""
    if cfg.learned_positions:
        return {}
    return {at.pos_embed: "positions enter by rotation, at at.rot_q and at.rot_k"}


def absent_in_layer(layer: Layer) -> dict[LayerSite, str]:
    """Return the sites that a block lacks, each with the reason."""
    absent: dict[LayerSite, str] = {}

    def lacks(reason: str, *sites: LayerSite) -> None:
        absent.update(dict.fromkeys(sites, reason))

    if layer.ln1 is None:
        reason = _NO_NORM.format(reads="attention", writes="what it writes", post="ln1_post")
        lacks(reason, at.ln1_scale, at.ln1_normalized)
    if layer.ln1_post is None:
        lacks(_NO_POST.format(writes="attention"), at.ln1_post_scale, at.ln1_post_normalized)
    if layer.ln2 is None and layer.order == "parallel":
        lacks(
            "the MLP reads what attention reads: see at.ln1_scale", at.ln2_scale, at.ln2_normalized
        )
    elif layer.ln2 is None:
        reason = _NO_NORM.format(reads="the MLP", writes="what it writes", post="ln2_post")
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
        lacks("queries and keys are not normed", *sites)
    if layer.attn.rotary is None:
        lacks("nothing is rotated: at.q and at.k are what is dotted", at.rot_q, at.rot_k)
    if isinstance(layer.mlp, Experts):
        reason = "each token has neurons in its own few experts; see at.expert_weights"
        lacks(reason, at.pre, at.pre_linear, at.post)
    else:
        lacks("the MLP is one, not a mixture of experts", at.router_logits, at.expert_weights)
        if not isinstance(layer.mlp, GatedMLP):
            lacks("the MLP has no gate: at.pre is its only branch", at.pre_linear)
    return absent
