"""The forward pass of a decoder-only transformer, once, with every tap.

It reads from top to bottom: `forward` runs blocks, a block is attention and MLP, each normed
before and added after. Structure comes from :mod:`mi_ref.config`; nothing here knows a family.
"""

from __future__ import annotations

from dataclasses import dataclass

from mi_ref._typing import Array, DType, Float, Int, Residual
from mi_ref.backend import Backend
from mi_ref.config import Attention, DecoderConfig, GatedMLP, Layer, RMSNorm
from mi_ref.ops import Ops
from mi_ref.params import DecoderParams, LayerParams, Linear, Norm
from mi_ref.plan import HookPlan, Tap
from mi_ref.rope import Rope, rotary_tables
from mi_ref.sites import Site, at


@dataclass(frozen=True, slots=True)
class _Context:
    """What every block of one pass shares."""

    ops: Ops
    backend: Backend
    tables: dict[Rope, tuple[Array, Array]]
    """Cosine and sine of each rotary variant in use."""


def embed(params: DecoderParams, tokens: Int[Array, "batch pos"], backend: Backend) -> Residual:
    """Look up each token's embedding."""
    return backend.ops.embed(params.embed, tokens)


def run_layers(
    params: DecoderParams,
    cfg: DecoderConfig,
    resid: Residual,
    layers: range,
    plan: HookPlan,
    backend: Backend,
) -> Residual:
    """Send the residual stream through some successive blocks.

    Parameters
    ----------
    params, cfg
        The model.
    resid : Array
        Residual stream entering the first of `layers`.
    layers : range
        Which blocks.
    plan : HookPlan
        What to capture and change.
    backend : Backend
        Of all arrays involved.

    Returns
    -------
    Array
        Residual stream leaving the last of `layers`.
    """
    n_pos = resid.shape[1]
    context = _Context(backend.ops, backend, _rotary(cfg, layers, n_pos, resid.dtype, backend))
    for number in layers:
        resid = _block(params.layers[number], cfg.layers[number], resid, plan.tap(number), context)
    return resid


def unembed(
    params: DecoderParams,
    cfg: DecoderConfig,
    resid: Residual,
    tap: Tap,
    backend: Backend,
    last: bool,
) -> Float[Array, "batch out_pos d_vocab"]:
    """Return the logits of a residual stream: final norm, then unembedding.

    Parameters
    ----------
    params, cfg
        The model.
    resid : Array
        Residual stream leaving the last block, or any other.
    tap : Tap
        Of the global sites.
    backend : Backend
        Of all arrays involved.
    last : bool
        Unembed the last position only; the norm and its sites still see all of them.
    """
    sites = (at.ln_final_scale, at.ln_final_normalized, at.unembed_in)
    normed = _norm(params.ln_final, cfg.ln_final, resid, tap, sites, backend.ops)
    if last:
        normed = normed[:, -1:, :]
    return tap(at.logits, backend.ops.unembed(normed, params.unembed))


def _block(w: LayerParams, layer: Layer, resid: Residual, tap: Tap, context: _Context) -> Residual:
    """Return the residual stream after one block."""
    ops = context.ops
    resid = tap(at.resid_pre, resid)
    sites = (at.ln1_scale, at.ln1_normalized, at.attn_in)
    normed = _norm(w.ln1, layer.norm, resid, tap, sites, ops)
    resid = tap(at.resid_mid, resid + _attention(w, layer.attn, normed, tap, context))
    sites = (at.ln2_scale, at.ln2_normalized, at.mlp_in)
    normed = _norm(w.ln2, layer.norm, resid, tap, sites, ops)
    return tap(at.resid_post, resid + _mlp(w, layer.mlp, normed, tap, ops))


def _norm(
    w: Norm, norm: RMSNorm, x: Residual, tap: Tap, sites: tuple[Site, Site, Site], ops: Ops
) -> Residual:
    """Norm `x`; `sites` are those of the denominator, of the quotient, and of the result."""
    scale_site, normalized_site, out_site = sites
    if not tap.wants(scale_site, normalized_site):
        return tap(out_site, ops.rms_norm(x, w.weight, norm.eps))
    scale = tap(scale_site, ops.rms_scale(x, norm.eps))
    normalized = tap(normalized_site, x / scale)
    return tap(out_site, normalized * w.weight)


def _attention(
    w: LayerParams, attn: Attention, x: Residual, tap: Tap, context: _Context
) -> Residual:
    """Return what attention adds to the residual stream, given its normed input."""
    ops = context.ops
    q = tap(at.q, _heads(_apply(w.query, x, ops), attn.n_heads, context))
    k = tap(at.k, _heads(_apply(w.key, x, ops), attn.n_key_value_heads, context))
    v = tap(at.v, _heads(_apply(w.value, x, ops), attn.n_key_value_heads, context))
    cos, sin = context.tables[attn.rope]
    q = tap(at.rot_q, ops.rotate(q, cos, sin, reuse=not tap.wants(at.q)))
    k = tap(at.rot_k, ops.rotate(k, cos, sin, reuse=not tap.wants(at.k)))
    if tap.wants(at.attn_scores, at.pattern):
        scores = tap(at.attn_scores, ops.causal_scores(q, k, attn.scale))
        masked = not tap.edits(at.attn_scores)
        reuse = not tap.wants(at.attn_scores)
        pattern = tap(at.pattern, ops.attention_pattern(scores, reuse=reuse, masked=masked))
        z = ops.mix_values(pattern, v, masked=masked and not tap.edits(at.pattern))
    else:
        z = ops.causal_attention(q, k, v, attn.scale)
    z = tap(at.z, z)
    batch, n_pos = x.shape[:2]
    merged = context.backend.xp.reshape(z, (batch, n_pos, attn.n_heads * attn.d_head))
    out = _apply(w.out, merged, ops)
    if tap.wants(at.result):
        out = _by_head(w.out, z, out, tap, context)
    return tap(at.attn_out, tap(at.attn_out_raw, out))


def _by_head(w: Linear, z: Array, out: Residual, tap: Tap, context: _Context) -> Residual:
    """Tap each head's own output and return what attention gives after that.

    Only what an edit changed is added to the whole, so that looking changes no bit of it.
    """
    xp = context.backend.xp
    n_heads, d_head = z.shape[2:]
    # [d_model, head * d_head] -> [head, d_head, d_model]
    per_head = xp.permute_dims(xp.reshape(w.weight, (-1, n_heads, d_head)), (1, 2, 0))
    # [b, p, h, 1, d_head] @ [h, d_head, d_model] -> [b, p, h, d_model]
    result = xp.squeeze(z[:, :, :, None, :] @ per_head, axis=3)
    edited = tap(at.result, result)
    return out if edited is result else out + xp.sum(edited - result, axis=2)


def _mlp(w: LayerParams, mlp: GatedMLP, x: Residual, tap: Tap, ops: Ops) -> Residual:
    """Return what the MLP adds to the residual stream, given its normed input."""
    pre = tap(at.pre, _apply(w.mlp_gate, x, ops))
    pre_linear = tap(at.pre_linear, _apply(w.mlp_in, x, ops))
    post = tap(at.post, ops.gate(pre, pre_linear, mlp.act_fn, reuse=not tap.wants(at.pre)))
    return tap(at.mlp_out, tap(at.mlp_out_raw, _apply(w.mlp_out, post, ops)))


def _apply(w: Linear, x: Array, ops: Ops) -> Array:
    return ops.linear(x, w.weight, w.bias)


def _heads(x: Array, n_heads: int, context: _Context) -> Array:
    """Split the last axis: [batch, pos, head * d_head] -> [batch, pos, head, d_head]."""
    batch, n_pos, width = x.shape
    return context.backend.xp.reshape(x, (batch, n_pos, n_heads, width // n_heads))


def _rotary(
    cfg: DecoderConfig, layers: range, n_pos: int, dtype: DType, backend: Backend
) -> dict[Rope, tuple[Array, Array]]:
    """Compute each rotary variant's tables once for all layers that share it."""
    kinds = {(cfg.layers[number].attn.rope, cfg.layers[number].attn.d_head) for number in layers}
    return {
        rope: rotary_tables(rope, d_head, n_pos, dtype=dtype, xp=backend.xp, device=backend.device)
        for rope, d_head in kinds
    }
