"""What a set of captured arrays must satisfy before it may be called golden.

Each check raises `AssertionError` naming the hook; none repeats a formula of ``mi_ref``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from golden.capture import Arrays

IDENTITY_TOLERANCE = 1e-13
NON_UNIFORM = 0.3


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


def check_identities(arrays: Arrays, weights: Arrays) -> None:
    """Check the linear identities of a sequential gated decoder, and that attention is causal.

    Parameters
    ----------
    arrays : dict
        Output of `capture`.
    weights : dict
        The model's parameters by their transformers names.
    """
    n_layers = sum(hook.endswith("hook_resid_pre") for hook in arrays)
    _equal("hook_embed", arrays["hook_embed"], arrays["blocks.0.hook_resid_pre"])
    for layer in range(n_layers):
        at = _Block(arrays, f"blocks.{layer}.")
        names = f"model.layers.{layer}."
        b_O = weights.get(names + "self_attn.o_proj.bias", 0.0)
        W_out = weights[names + "mlp.down_proj.weight"]
        b_out = weights.get(names + "mlp.down_proj.bias", 0.0)

        _equal("resid_mid", at["hook_resid_pre"] + at["hook_attn_out"], at["hook_resid_mid"])
        _equal("resid_post", at["hook_resid_mid"] + at["hook_mlp_out"], at["hook_resid_post"])
        _equal("result", at["attn.hook_result"].sum(2) + b_O, at["attn.hook_out"])
        _equal("mlp_out", at["mlp.hook_post"] @ W_out.T + b_out, at["mlp.hook_out"])
        for norm, gain, reader in (
            ("ln1", "input_layernorm", "attn.hook_in"),
            ("ln2", "post_attention_layernorm", "mlp.hook_in"),
        ):
            resid = at["hook_resid_pre" if norm == "ln1" else "hook_resid_mid"]
            normalized = at[norm + ".hook_normalized"]
            _equal(norm + ".hook_scale", at[norm + ".hook_scale"] * normalized, resid)
            _equal(
                norm + ".hook_normalized", normalized * weights[f"{names}{gain}.weight"], at[reader]
            )
        _check_attention(at)
        if layer + 1 < n_layers:
            _equal("resid_pre", at["hook_resid_post"], arrays[f"blocks.{layer + 1}.hook_resid_pre"])


def _check_attention(at: _Block) -> None:
    scores, pattern, v = at["attn.hook_attn_scores"], at["attn.hook_pattern"], at["attn.hook_v"]
    n_heads, n_pos = pattern.shape[1:3]
    future = np.triu(np.ones((n_pos, n_pos), dtype=bool), 1)
    if not np.array_equal(np.isneginf(scores), np.broadcast_to(future, scores.shape)):
        raise AssertionError(f"{at.prefix}attn.hook_attn_scores: -inf is not exactly the future")
    _equal("pattern", pattern.sum(-1), np.ones(pattern.shape[:-1]))
    v = np.repeat(v, n_heads // v.shape[2], axis=2)
    _equal("z", np.einsum("bhqk,bkhd->bqhd", pattern, v), at["attn.hook_z"])
    uniform = ~future / (~future).sum(-1, keepdims=True)
    off = np.abs(pattern - uniform).max(axis=(0, 2, 3))
    if off.min() < NON_UNIFORM:
        raise AssertionError(f"{at.prefix}attn.hook_pattern: a head is near uniform ({off})")


def check_rope(model: nn.Module, n_pos: int) -> None:
    """Check that rotary scaling does to the frequencies what its case is there to show.

    Parameters
    ----------
    model : nn.Module
        After its run: dynamic scaling sets the frequencies in the forward pass.
    n_pos : int
        Length of that run.
    """
    config: Any = model.config
    rotary: Any = model.get_submodule("model.rotary_emb")
    parameters = config.rope_parameters
    if rotary.inv_freq.dtype != torch.float64:
        raise AssertionError("rotary frequencies are not float64")
    plain = rotary.compute_default_rope_parameters(config)[0].double().numpy()
    ratio = rotary.inv_freq.numpy() / plain
    n_ctx = config.max_position_embeddings
    factor = parameters.get("factor")
    if factor is None:
        factor = n_ctx / parameters.get("original_max_position_embeddings", n_ctx)
    kept = np.isclose(ratio, 1.0, rtol=1e-12, atol=0.0)
    divided = np.isclose(ratio, 1.0 / factor, rtol=1e-12, atol=0.0) & ~kept
    regimes = {
        "kept": bool(kept.any()),
        "between": bool((~kept & ~divided).any()),
        "divided": bool(divided.any()),
    }
    found = {name for name, present in regimes.items() if present}
    wanted = {
        "default": {"kept"},
        "linear": {"divided"},
        "dynamic": {"kept", "between"} if n_pos > n_ctx else {"kept"},
        "llama3": {"kept", "between", "divided"},
        "yarn": {"kept", "between", "divided"},
    }[parameters["rope_type"]]
    if found != wanted:
        raise AssertionError(f"rope {parameters['rope_type']}: {found}, wanted {wanted}: {ratio}")


class _Block:
    def __init__(self, arrays: Arrays, prefix: str) -> None:
        self.arrays, self.prefix = arrays, prefix

    def __getitem__(self, hook: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self.arrays[self.prefix + hook]


def _equal(name: str, actual: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> None:
    error = relative_error(actual, expected)
    if not error <= IDENTITY_TOLERANCE:
        raise AssertionError(f"{name}: relative error {error:.1e}")
