"""Mixtures of experts: each token goes through the few MLPs that its router chose.

Source: transformers 5.23.0 ``models/mixtral``, ``models/qwen3_moe``; arXiv:2401.04088.
"""

from __future__ import annotations

from mi_ref._typing import Array, Float, Residual
from mi_ref.backend import Backend
from mi_ref.config.decoder import Experts
from mi_ref.params.params import ExpertsParams, MLPParams


def expert_weights(
    router_logits: Float[Array, "batch pos expert"], mlp: Experts, backend: Backend
) -> Float[Array, "batch pos expert"]:
    """Return the weight of each expert's output: a softmax, of which only the highest few stay."""
    xp = backend.xp
    probabilities = backend.ops.softmax(router_logits)
    chosen, ids = backend.ops.top_k(probabilities, mlp.n_active)
    if mlp.renormalise:
        chosen = chosen / xp.sum(chosen, axis=-1, keepdims=True)
    every = xp.arange(mlp.n_experts, dtype=ids.dtype, device=ids.device)
    # [b, p, chosen, 1] and [expert] -> [b, p, expert]: each chosen weight at its expert
    placed = xp.where(ids[..., None] == every, chosen[..., None], xp.zeros_like(chosen[..., None]))
    return xp.sum(placed, axis=-2)


def mix_experts(
    x: Residual,
    weights: Float[Array, "batch pos expert"],
    w: ExpertsParams,
    mlp: Experts,
    backend: Backend,
) -> Residual:
    """Return each token's weighted sum of expert outputs; experts of weight zero do not run.

    The weights are copied to the host once per layer, because they decide which experts run.
    """
    xp, ops = backend.xp, backend.ops
    batch, n_pos, d_model = x.shape
    n_tokens = batch * n_pos
    tokens = xp.reshape(x, (n_tokens, d_model))
    flat = xp.reshape(weights, (n_tokens, mlp.n_experts))
    outputs = [xp.zeros((1, d_model), dtype=x.dtype, device=x.device)]
    # For each token, which rows of `outputs` are its own; row 0 adds nothing.
    rows: list[list[int]] = [[] for _ in range(n_tokens)]
    used = 1
    columns = zip(*backend.to_host(flat).tolist(), strict=True)
    for expert, column in enumerate(columns):
        mine = [token for token, weight in enumerate(column) if weight != 0]
        if mine:
            ids = xp.asarray(mine, dtype=xp.int64, device=x.device)
            out = _run(xp.take(tokens, ids, axis=0), w.experts[expert], mlp, backend)
            outputs.append(out * xp.take(flat[:, expert], ids, axis=0)[:, None])
            for place, token in enumerate(mine):
                rows[token].append(used + place)
            used += len(mine)
    most = max(map(len, rows), default=0) or 1
    filled = [[*own, *[0] * (most - len(own))] for own in rows]
    ids = xp.reshape(xp.asarray(filled, dtype=xp.int64, device=x.device), (-1,))
    gathered = xp.take(xp.concat(outputs, axis=0), ids, axis=0)
    summed = xp.sum(xp.reshape(gathered, (n_tokens, most, d_model)), axis=1)
    return ops.lay_out(xp.reshape(summed, (batch, n_pos, d_model)), None)


def _run(x: Array, w: MLPParams, mlp: Experts, backend: Backend) -> Array:
    """Return one expert's output for some tokens ``[token, d_model]``."""
    assert w.gate is not None
    ops = backend.ops
    rows = x[None, :, :]
    pre = ops.linear(rows, w.gate.weight, w.gate.bias)
    pre_linear = ops.linear(rows, w.into.weight, w.into.bias)
    post = ops.gate(pre, pre_linear, mlp.act_fn, overwrite=True)
    return ops.linear(post, w.out.weight, w.out.bias)[0, :, :]
