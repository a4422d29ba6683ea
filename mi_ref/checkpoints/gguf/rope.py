"""The rotary embedding that a GGUF file asks for, as ``config.json`` would ask for it.

Source: llama.cpp ``convert_hf_to_gguf.py`` (``generate_extra_tensors``) and ``llama-model.cpp``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mi_ref.checkpoints.gguf.metadata import Metadata
from mi_ref.checkpoints.gguf.weights import numbers

# Those of every Llama from 3.1 on; the file has only the factors that follow from them.
_LOW, _HIGH, _ORIGINAL = 1.0, 4.0, 8192
_FLOAT32 = 1e-6


def rope_scaling(
    meta: Metadata, *, theta: object, n_ctx: object, dims: object
) -> dict[str, Any] | None:
    """Return ``rope_scaling``, taking the keys it is made of; None without scaling.

    Parameters
    ----------
    meta : Metadata
        The keys of the architecture. What is not understood stays.
    theta, n_ctx, dims : object
        The rotary base, the positions that the model was made for and the coordinates of a head
        that turn, all as the file has them.
    """
    keys = meta.keys
    kind = keys.get("rope.scaling.type", "none")
    meta.take("rope.scaling.finetuned")
    factors = numbers(meta.file, "rope_freqs.weight")
    long, short = (numbers(meta.file, f"rope_factors_{name}.weight") for name in ("long", "short"))
    found: dict[str, Any] | None = None
    if factors is not None and kind == "none":
        found = _divided(meta, factors, theta, n_ctx, dims)
    elif long is not None and short is not None and kind in ("none", "longrope"):
        found = _longrope(meta, long, short, n_ctx)
    elif factors is None and kind == "yarn":
        found = _yarn(meta)
    elif factors is None and (kind == "linear" or "rope.scale_linear" in keys):
        # Files of 2023 have scale_linear, and 1 in it for none.
        factor = meta.take("rope.scaling.factor", meta.take("rope.scale_linear"))
        found = None if factor == 1.0 else {"rope_type": "linear", "factor": factor}
    elif kind != "none":
        return None  # its type stays, and will be refused
    meta.take("rope.scaling.type")
    return found


def _divided(
    meta: Metadata, factors: list[float], theta: object, n_ctx: object, dims: object
) -> dict[str, Any]:
    """Return scaling by a factor for each frequency."""
    if type(theta) is float and type(dims) is int and (found := _llama3(factors, theta, dims)):
        meta.infer("Llama 3's rotary scaling: its parameters give the factors that the file holds")
        return found
    return {
        "rope_type": "longrope",
        "factor": 1.0,
        "attention_factor": 1.0,
        "original_max_position_embeddings": n_ctx,
        "long_factor": factors,
        "short_factor": factors,
    }


def _yarn(meta: Metadata) -> dict[str, Any]:
    keys = meta.keys
    found = {"rope_type": "yarn", "factor": meta.take("rope.scaling.factor")}
    for key, name in (
        ("rope.scaling.original_context_length", "original_max_position_embeddings"),
        ("rope.scaling.yarn_beta_fast", "beta_fast"),
        ("rope.scaling.yarn_beta_slow", "beta_slow"),
    ):
        if key in keys:
            found[name] = keys.pop(key)
    return found


def _longrope(
    meta: Metadata, long: Sequence[float], short: Sequence[float], n_ctx: object
) -> dict[str, Any]:
    original = meta.take("rope.scaling.original_context_length")
    found: dict[str, Any] = {"rope_type": "longrope", "long_factor": long, "short_factor": short}
    if original is not None:
        found["original_max_position_embeddings"] = original
    stored = meta.take("rope.scaling.attn_factor")
    if type(stored) is float and stored > 0:
        follows = None
        if type(n_ctx) is int and type(original) is int and n_ctx > original > 1:
            follows = math.sqrt(1 + math.log(n_ctx / original) / math.log(original))
        # Left out where it follows from the lengths, which are exact: the file has float32.
        if follows is None or not math.isclose(stored, follows, rel_tol=_FLOAT32):
            found["attention_factor"] = stored
    return found


def _llama3(factors: Sequence[float], theta: float, dims: int) -> dict[str, Any] | None:
    """Return Llama 3's scaling if it gives these factors, else None."""
    most = max(factors, default=1.0)
    if len(factors) != dims // 2 or not 1 < most < math.inf:
        return None
    for pair, factor in enumerate(factors):
        turns = _ORIGINAL / (2 * math.pi * theta ** (2 * pair / dims))
        smooth = min(max((turns - _LOW) / (_HIGH - _LOW), 0.0), 1.0)
        if not math.isclose(factor, 1 / ((1 - smooth) / most + smooth), rel_tol=_FLOAT32):
            return None
    return {
        "rope_type": "llama3",
        "factor": most,
        "low_freq_factor": _LOW,
        "high_freq_factor": _HIGH,
        "original_max_position_embeddings": _ORIGINAL,
    }
