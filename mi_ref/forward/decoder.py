"""The forward pass of a decoder-only transformer, once, with every tap.

It reads from top to bottom: `embed`, then one `block` per layer, whose attention and MLP are each
normed before or after and added, then `unembed`. `forward.layers` is the loop. Structure comes
from :mod:`mi_ref.config`; nothing here knows a family.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from mi_ref._typing import Array, Float, Int, Residual
from mi_ref.backend import Backend
from mi_ref.config.decoder import (
    Attention,
    DecoderConfig,
    Experts,
    Layer,
    LayerNorm,
    QKNorm,
    RecurrentLayer,
)
from mi_ref.config.rope import Rotary
from mi_ref.forward.carry import Carry
from mi_ref.forward.experts import expert_weights, mix_experts
from mi_ref.forward.norm import apply_norm
from mi_ref.forward.plan import Tap
from mi_ref.forward.rotary import rotary_tables
from mi_ref.hooks.sites import Site, at
from mi_ref.ops.heads import merge_heads, split_heads
from mi_ref.ops.ops import Ops
from mi_ref.params.params import DecoderParams, ExpertsParams, LayerParams, Linear, MLPParams, Norm
from mi_ref.text.padding import Padding


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every block of one pass shares."""

    ops: Ops
    backend: Backend
    tables: dict[Rotary, tuple[Array, Array]]
    """Cosine and sine of each rotary variant in use."""
    starts: Int[Array, " batch"] | None
    """Where each row's tokens begin, if any begins late."""


def embed(
    params: DecoderParams,
    cfg: DecoderConfig,
    tokens: Int[Array, "batch pos"],
    padding: Padding | None,
    tap: Tap,
    backend: Backend,
) -> Residual:
    """Return the residual stream that enters the first block."""
    ops, xp = backend.ops, backend.xp
    resid = ops.embed(params.embed, tokens)
    if cfg.embed_scale is not None:
        resid = resid * cfg.embed_scale
    resid = tap(at.embed, resid)
    if params.ln_embed is not None and cfg.ln_embed is not None:
        w = params.ln_embed
        resid = ops.rms_norm(ops.center(resid), w.weight, w.bias, cfg.ln_embed.eps)
    if params.pos_embed is None:
        return resid
    if padding is None:
        columns = xp.arange(tokens.shape[1], dtype=tokens.dtype, device=tokens.device)
        positions = xp.broadcast_to(columns, tokens.shape)
    else:
        positions = padding.positions(backend)
    return resid + tap(at.pos_embed, ops.embed(params.pos_embed, positions))


def surroundings(
    layers: Iterable[Layer | RecurrentLayer],
    resid: Residual,
    padding: Padding | None,
    backend: Backend,
) -> Surroundings:
    """Return what the blocks of one pass share, given the stream that enters the first."""
    rotaries = {layer.attn.rotary for layer in layers if isinstance(layer, Layer)}
    tables = {
        rotary: rotary_tables(rotary, resid.shape[1], padding, dtype=resid.dtype, backend=backend)
        for rotary in rotaries
        if rotary is not None
    }
    late = padding is not None and any(padding.starts)
    starts = padding.starts_array(backend) if padding and late else None
    return Surroundings(backend.ops, backend, tables, starts)


def unembed(
    params: DecoderParams,
    cfg: DecoderConfig,
    resid: Residual,
    columns: Int[Array, " batch"] | None,
    tap: Tap,
    backend: Backend,
) -> Float[Array, "batch out_pos d_vocab"]:
    """Return the logits of a residual stream: final norm, unembedding, soft-cap.

    Parameters
    ----------
    params, cfg
        The model.
    resid : Array
        Residual stream leaving the last block, or any other.
    columns : Array or None
        Unembed one position of each row only; the norm and its sites still see all of them.
    tap : Tap
        The tap of the global sites.
    backend : Backend
        The library that holds all arrays.
    """
    sites, w, ops = (at.ln_final_scale, at.ln_final_normalized), params.unembed, backend.ops
    normed = apply_norm(params.ln_final, cfg.ln_final, resid, tap, sites, ops)
    normed = tap(at.unembed_in, normed)
    if columns is not None:
        normed = backend.xp.take_along_axis(normed, columns[:, None, None], axis=1)
    logits = tap(at.logits, ops.unembed(normed, w.weight, w.bias))
    if cfg.softcap is None:
        return logits
    return ops.soft_cap(logits, cfg.softcap, overwrite=tap.free(logits))


def block(w: LayerParams, layer: Layer, carry: Carry, tap: Tap, context: Surroundings) -> Carry:
    """Return what leaves one block: its attention and its MLP each add to the stream."""
    ops = context.ops
    resid = tap(at.resid_pre, carry.resid)
    normed = resid
    if w.ln1 is not None and layer.ln1 is not None:
        sites = (at.ln1_scale, at.ln1_normalized)
        normed = apply_norm(w.ln1, layer.ln1, resid, tap, sites, ops)
    attn_out = _attention(w, layer.attn, tap(at.attn_in, normed), tap, context)
    if w.ln1_post is not None and layer.ln1_post is not None:
        sites = (at.ln1_post_scale, at.ln1_post_normalized)
        attn_out = apply_norm(w.ln1_post, layer.ln1_post, attn_out, tap, sites, ops)
    attn_out = tap(at.attn_out, attn_out)
    if layer.order == "sequential":
        resid = normed = tap(at.resid_mid, resid + attn_out)
    if w.ln2 is not None and layer.ln2 is not None:
        normed = apply_norm(w.ln2, layer.ln2, resid, tap, (at.ln2_scale, at.ln2_normalized), ops)
    mlp_out = _mlp(w, layer, tap(at.mlp_in, normed), tap, context)
    if w.ln2_post is not None and layer.ln2_post is not None:
        sites = (at.ln2_post_scale, at.ln2_post_normalized)
        mlp_out = apply_norm(w.ln2_post, layer.ln2_post, mlp_out, tap, sites, ops)
    mlp_out = tap(at.mlp_out, mlp_out)
    written = mlp_out if layer.order == "sequential" else attn_out + mlp_out
    return replace(carry, resid=tap(at.resid_post, resid + written))


def _attention(
    w: LayerParams, attn: Attention, x: Residual, tap: Tap, context: Surroundings
) -> Residual:
    """Return what attention gives before any norm of it, given its normed input."""
    ops = context.ops
    q, k, v = _query_key_value(w, attn, x, tap, context)
    options = {"scale": attn.scale, "softcap": attn.softcap, "window": attn.window}
    if tap.wants(at.attn_scores, at.pattern):
        scores = tap(at.attn_scores, ops.attention_scores(q, k, starts=context.starts, **options))
        pattern = tap(at.pattern, ops.attention_pattern(scores, overwrite=tap.free(scores)))
        z = ops.mix_values(pattern, v)
    else:
        z = ops.attention(q, k, v, starts=context.starts, **options)
    z = tap(at.z, z)
    out = _apply(w.out, merge_heads(z, context.backend.xp), ops)
    if tap.wants(at.result):
        out = _by_head(w.out, z, out, tap, context)
    return tap(at.attn_out_raw, out)


def _query_key_value(
    w: LayerParams, attn: Attention, x: Residual, tap: Tap, context: Surroundings
) -> tuple[Array, Array, Array]:
    """Return queries and keys as used in the dot product, and values."""
    ops = context.ops
    q = tap(at.q, split_heads(_apply(w.query, x, ops), attn.n_heads, context.backend.xp))
    k = tap(at.k, split_heads(_apply(w.key, x, ops), attn.n_key_value_heads, context.backend.xp))
    v = tap(at.v, split_heads(_apply(w.value, x, ops), attn.n_key_value_heads, context.backend.xp))
    if attn.qk_norm is not None and w.q_norm is not None and w.k_norm is not None:
        sites = (at.q_norm_scale, at.q_norm_normalized)
        q = _norm_heads(w.q_norm, attn.qk_norm, q, tap, sites, context)
        sites = (at.k_norm_scale, at.k_norm_normalized)
        k = _norm_heads(w.k_norm, attn.qk_norm, k, tap, sites, context)
    if attn.rotary is not None:
        cos, sin = context.tables[attn.rotary]
        q = tap(at.rot_q, ops.rotate(q, cos, sin, overwrite=tap.free(q)))
        k = tap(at.rot_k, ops.rotate(k, cos, sin, overwrite=tap.free(k)))
    return q, k, v


def _norm_heads(
    w: Norm, kind: QKNorm, x: Array, tap: Tap, sites: tuple[Site, Site], context: Surroundings
) -> Array:
    """Norm queries or keys ``[batch, pos, head, d_head]``: each head, or all as one row."""
    ops, norm = context.ops, kind.norm
    if kind.per_head:
        return apply_norm(w, norm, x, tap, sites, ops)
    n_heads = x.shape[2]
    row = merge_heads(x, context.backend.xp)
    if isinstance(norm, LayerNorm):
        row = ops.center(row)
    if not tap.wants(*sites):
        return split_heads(
            ops.rms_norm(row, w.weight, w.bias, norm.eps), n_heads, context.backend.xp
        )
    scale = tap(sites[0], ops.rms_scale(row, norm.eps)[..., None])
    normalized = tap(sites[1], split_heads(row, n_heads, context.backend.xp) / scale)
    normed = merge_heads(normalized, context.backend.xp) * w.weight
    return split_heads(normed if w.bias is None else normed + w.bias, n_heads, context.backend.xp)


def _by_head(w: Linear, z: Array, out: Residual, tap: Tap, context: Surroundings) -> Residual:
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
    if edited is result:
        return out
    return context.ops.lay_out(out + xp.sum(edited - result, axis=2), out)


def _mlp(w: LayerParams, layer: Layer, x: Residual, tap: Tap, context: Surroundings) -> Residual:
    """Return what the MLP gives before any norm of it, given its normed input."""
    ops, mlp = context.ops, layer.mlp
    if isinstance(mlp, Experts):
        assert isinstance(w.mlp, ExpertsParams)
        logits = tap(at.router_logits, _apply(w.mlp.router, x, ops))
        weights = tap(at.expert_weights, expert_weights(logits, mlp, context.backend))
        return tap(at.mlp_out_raw, mix_experts(x, weights, w.mlp, mlp, context.backend))
    assert isinstance(w.mlp, MLPParams)
    if w.mlp.gate is None:
        pre = tap(at.pre, _apply(w.mlp.into, x, ops))
        post = ops.activation(pre, mlp.act_fn)
    else:
        pre = tap(at.pre, _apply(w.mlp.gate, x, ops))
        pre_linear = tap(at.pre_linear, _apply(w.mlp.into, x, ops))
        post = ops.gate(pre, pre_linear, mlp.act_fn, overwrite=tap.free(pre))
    return tap(at.mlp_out_raw, _apply(w.mlp.out, tap(at.post, post), ops))


def _apply(w: Linear, x: Array, ops: Ops) -> Array:
    return ops.linear(x, w.weight, w.bias)
