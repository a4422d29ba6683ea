"""The conditions that captured arrays must satisfy to become golden files.

Each check raises `AssertionError` naming the hook; none repeats a formula of ``mi_ref``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from golden.capture.modules import Arrays, out_by_in
from golden.capture.tables import FAMILIES, Block

IDENTITY_TOLERANCE = 1e-13
NON_UNIFORM = 0.3
ROUTER_GAP = 1e-2


def relative_error(actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    """Norm of the difference over the norm of `expected`; infinities must be in the same places."""
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {actual.shape}, expected {expected.shape}")
    finite = np.isfinite(expected)
    if not np.array_equal(actual[~finite], expected[~finite]):
        return float("inf")
    difference = np.linalg.norm(actual[finite] - expected[finite])
    return float(difference / np.linalg.norm(expected[finite]))


def worst_error(actual: Arrays, expected: Arrays) -> float:
    """Greatest `relative_error` over all hook points."""
    if list(actual) != list(expected):
        raise AssertionError("the two runs captured different hook points")
    return max(relative_error(actual[hook], expected[hook]) for hook in expected)


def check_identities(model: nn.Module, tokens: Tensor, arrays: Arrays) -> None:
    """Check the identities between the hooks of any decoder, and which keys each query sees.

    Parameters
    ----------
    model : nn.Module
        In float64; its structure and its weights enter the identities.
    tokens : Tensor
        ``[batch, pos]``
    arrays : dict
        Output of `capture`.
    """
    config: Any = model.config
    family = FAMILIES[config.model_type]
    blocks: Any = model.get_submodule(family.layers)
    embed: Any = model.get_submodule(family.embed)
    rows = embed.weight.detach().numpy()[tokens.numpy()]
    _equal("hook_embed", arrays["hook_embed"], rows * getattr(embed, "scalar_embed_scale", 1.0))
    resid = arrays["hook_embed"] + arrays.get("hook_pos_embed", 0.0)
    for layer, block in enumerate(blocks):
        at = _Block(block, family.block(block), arrays, f"blocks.{layer}.", family.unit_offset)
        _equal(at.prefix + "hook_resid_pre", at["hook_resid_pre"], resid)
        resid = at["hook_resid_post"]
        _check_stream(at)
        _check_norms(at)
        _check_projections(at)
        _check_attention(at, visible(config, layer, resid.shape[1]))
        if "experts" in at.table.mlp:
            _check_experts(at)
        else:
            at.equal("mlp.hook_out", at.linear(at.table.mlp["out"], "mlp.hook_post"))
        if family.rotary is not None:
            _check_rotation(at, model.get_submodule(family.rotary), config, layer)
    final = _Block(model, None, arrays, "", family.unit_offset)
    final.check_norm("ln_final", family.ln_final, resid, "unembed.hook_in")
    final.equal("unembed.hook_out", final.linear("lm_head", "unembed.hook_in"))


def visible(config: Any, layer: int, n_pos: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return ``[query_pos, key_pos]``: which keys `config` lets a query of `layer` see."""
    query, key = np.arange(n_pos)[:, None], np.arange(n_pos)
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if window is None or (kinds is not None and kinds[layer] == "full_attention"):
        window = n_pos
    return (key <= query) & (key > query - window)


def check_logits(model: nn.Module, tokens: Tensor, arrays: Arrays) -> None:
    """Check that the logits the model returns are the unembedding's output, soft-capped if so."""
    config: Any = model.config
    with torch.no_grad():
        returned = model(input_ids=tokens, use_cache=False).logits.numpy()
    raw = arrays["unembed.hook_out"]
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is None:
        _equal("logits", returned, raw)
        return
    capped = cap * np.tanh(raw / cap)
    _equal("logits", returned, capped)
    if relative_error(capped, raw) < 1e-2:
        raise AssertionError(f"logits: a soft-cap of {cap} hardly changes them")


class _Block:
    """One block: its hooks by their strings, and its modules applied to them."""

    def __init__(
        self, module: nn.Module, table: Block | None, arrays: Arrays, prefix: str, unit_offset: bool
    ) -> None:
        self.module, self._table, self.arrays, self.prefix = module, table, arrays, prefix
        self.unit_offset = unit_offset

    @property
    def table(self) -> Block:
        assert self._table is not None
        return self._table

    def __getitem__(self, hook: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self.arrays[self.prefix + hook]

    def equal(self, hook: str, expected: np.ndarray[Any, Any]) -> None:
        """Check one hook."""
        _equal(self.prefix + hook, self[hook], expected)

    def linear(self, path: str, hook: str) -> np.ndarray[Any, Any]:
        """Return a linear module's output for a hook."""
        module: Any = self.module.get_submodule(path)
        return self[hook] @ out_by_in(module).detach().numpy().T + self.bias(path)

    def bias(self, path: str) -> np.ndarray[Any, Any] | float:
        """Return the bias of a module; 0 if it has none."""
        bias = getattr(self.module.get_submodule(path), "bias", None)
        return 0.0 if bias is None else bias.detach().numpy()

    def after_gain(self, name: str, path: str) -> np.ndarray[Any, Any]:
        """Return a norm's normalized hook times its gain, plus its bias."""
        module: Any = self.module.get_submodule(path)
        gain = module.weight.detach().numpy() + (1.0 if self.unit_offset else 0.0)
        normalized = self[name + ".hook_normalized"]
        if gain.size > normalized.shape[-1]:
            # A norm over all heads at once: [head * d_head] -> [head, d_head]
            gain = gain.reshape(normalized.shape[-2:])
        return normalized * gain + self.bias(path)

    def check_norm(self, name: str, path: str, x: np.ndarray[Any, Any], reader: str | None) -> None:
        """Check scale times normalized, and that `reader` gets the normalized after its gain."""
        if isinstance(self.module.get_submodule(path), nn.LayerNorm):
            x = x - x.mean(-1, keepdims=True)
        scale, normalized = self[name + ".hook_scale"], self[name + ".hook_normalized"]
        _equal(f"{self.prefix}{name}.hook_scale", scale * normalized, x)
        if reader is not None:
            self.equal(reader, self.after_gain(name, path))


def _check_stream(at: _Block) -> None:
    b_O = at.bias(at.table.attn["o"])
    at.equal("attn.hook_out", at["attn.hook_result"].sum(2) + b_O)
    if at.table.parallel:
        written = at["hook_attn_out"] + at["hook_mlp_out"]
        at.equal("hook_resid_post", at["hook_resid_pre"] + written)
        return
    at.equal("hook_resid_mid", at["hook_resid_pre"] + at["hook_attn_out"])
    at.equal("hook_resid_post", at["hook_resid_mid"] + at["hook_mlp_out"])


def _check_norms(at: _Block) -> None:
    before_mlp = "hook_resid_pre" if at.table.parallel else "hook_resid_mid"
    around = {
        "ln1": ("hook_resid_pre", "attn.hook_in"),
        "ln1_post": ("attn.hook_out", "hook_attn_out"),
        "ln2": (before_mlp, "mlp.hook_in"),
        "ln2_post": ("mlp.hook_out", "hook_mlp_out"),
    }
    for name, (source, reader) in around.items():
        if name in at.table.norms:
            at.check_norm(name, at.table.norms[name], at[source], reader)
        elif name == "ln2" and "ln1" in at.table.norms:
            at.equal(reader, at["attn.hook_in"])
        else:
            at.equal(reader, at[source])
    for name in "qk":
        if (norm := f"attn.{name}_norm") in at.table.norms:
            # Of the whole projection its mean would be over all heads; no layer norm is of those.
            at.check_norm(norm, at.table.norms[norm], at[f"attn.hook_{name}"], None)


def _check_projections(at: _Block) -> None:
    attn, mlp = at.table.attn, at.table.mlp
    for module, hooks in (
        *((attn.get(name), (f"attn.hook_{name}",)) for name in "qkv"),
        (attn.get("qkv"), ("attn.hook_q", "attn.hook_k", "attn.hook_v")),
        *((mlp.get(name), (f"mlp.hook_{name}",)) for name in ("pre", "pre_linear")),
        (mlp.get("gate_up"), ("mlp.hook_pre", "mlp.hook_pre_linear")),
        (mlp.get("router"), ("mlp.hook_router_logits",)),
    ):
        if module is None:
            continue
        read = at.linear(module, hooks[0].split(".")[0] + ".hook_in")
        # Together per head, [batch, pos, head, q k v d_head], or one after the other.
        joined = (
            np.concatenate([at[hook] for hook in hooks], axis=-1)
            if at.table.qkv_by_head
            else np.concatenate([at[hook].reshape(*read.shape[:2], -1) for hook in hooks], axis=-1)
        )
        _equal(at.prefix + hooks[0], joined.reshape(read.shape), read)


def _check_attention(at: _Block, sees: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    scores, pattern, v = at["attn.hook_attn_scores"], at["attn.hook_pattern"], at["attn.hook_v"]
    n_heads = pattern.shape[1]
    if not np.array_equal(np.isneginf(scores), np.broadcast_to(~sees, scores.shape)):
        raise AssertionError(f"{at.prefix}attn.hook_attn_scores: -inf in the wrong places")
    at.equal("attn.hook_pattern", torch.softmax(torch.from_numpy(scores), dim=-1).numpy())
    v = np.repeat(v, n_heads // v.shape[2], axis=2)
    at.equal("attn.hook_z", np.einsum("bhqk,bkhd->bqhd", pattern, v))
    uniform = sees / sees.sum(-1, keepdims=True)
    off = np.abs(pattern - uniform).max(axis=(0, 2, 3))
    if off.min() < NON_UNIFORM:
        raise AssertionError(f"{at.prefix}attn.hook_pattern: a head is near uniform ({off})")


def _check_experts(at: _Block) -> None:
    logits, weights = at["mlp.hook_router_logits"], at["mlp.hook_expert_weights"]
    ranked = np.sort(logits, axis=-1)
    if np.diff(ranked, axis=-1).min() < ROUTER_GAP:
        raise AssertionError(f"{at.prefix}mlp.hook_router_logits: two experts nearly tie")
    if not np.array_equal(weights > 0, logits >= ranked[..., [-_n_active(weights)]]):
        raise AssertionError(f"{at.prefix}mlp.hook_expert_weights: not the highest scores chosen")
    if (weights > 0).reshape(-1, weights.shape[-1]).any(axis=0).sum() < 3:
        raise AssertionError(f"{at.prefix}mlp.hook_expert_weights: always the same experts")
    experts = at.module.get_submodule(at.table.mlp["experts"])
    x = torch.from_numpy(at["mlp.hook_in"]).flatten(0, 1)
    total = np.zeros_like(at["mlp.hook_out"])
    for expert in range(weights.shape[-1]):
        only = torch.full((x.shape[0], 1), expert)
        with torch.no_grad():
            out = experts(x, only, torch.ones_like(x[:, :1])).numpy().reshape(total.shape)
        total += weights[..., [expert]] * out
    at.equal("mlp.hook_out", total)


def _n_active(weights: np.ndarray[Any, Any]) -> int:
    counts = set((weights > 0).sum(-1).reshape(-1).tolist())
    if len(counts) != 1:
        raise AssertionError(f"mlp.hook_expert_weights: {counts} experts chosen per token")
    return int(counts.pop())


def _check_rotation(at: _Block, rotary: Any, config: Any, layer: int) -> None:
    # Position 0 is turned by nothing, and turning keeps lengths everywhere: cosines and sines in
    # float32 would not.
    prefix = f"{config.layer_types[layer]}_" if isinstance(rotary.rope_type, dict) else ""
    turned = 2 * len(getattr(rotary, prefix + "inv_freq"))
    scaling = getattr(rotary, prefix + "attention_scaling")
    for name in "qk":
        norm, hook = f"attn.{name}_norm", f"attn.hook_rot_{name}"
        normed = norm in at.table.norms
        x = at.after_gain(norm, at.table.norms[norm]) if normed else at[f"attn.hook_{name}"]
        x = np.concatenate([scaling * x[..., :turned], x[..., turned:]], axis=-1)
        _equal(f"{at.prefix}{hook} at position 0", at[hook][:, 0], x[:, 0])
        lengths = (np.linalg.norm(y[..., :turned], axis=-1) for y in (at[hook], x))
        _equal(f"{at.prefix}{hook} in length", *lengths)


def _equal(name: str, actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    error = relative_error(actual, expected)
    if not error <= IDENTITY_TOLERANCE:
        raise AssertionError(f"{name}: relative error {error:.1e}")
