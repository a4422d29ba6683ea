"""Reading the rotary variant of a HuggingFace config, old style or new."""

from __future__ import annotations

import math

from mi_ref.hf_config import HfConfig
from mi_ref.rope import DefaultRope, DynamicRope, LinearRope, Llama3Rope, Rope, YarnRope


def read_rope(read: HfConfig, *, n_ctx: int, default_theta: float) -> Rope:
    """Return the rotary variant that `read` asks for.

    Old files have ``rope_theta`` and ``rope_scaling`` (``type`` or ``rope_type``); transformers 5
    writes one ``rope_parameters``. What both give, ``rope_scaling`` decides, as there.

    Source: transformers 5.23.0 ``RotaryEmbeddingConfigMixin``.
    """
    theta = read.number("rope_theta", default_theta)
    old, new = read.section("rope_scaling"), read.section("rope_parameters")
    key, values = ("rope_scaling", old) if old else ("rope_parameters", new)
    inner = read.nested(key, values)
    original = "original_max_position_embeddings"
    # Where both stand, HuggingFace lets the outer original length win.
    n_original = read.integer(original, n_ctx) if read.has(original) else None
    return _variant(inner, inner.number("rope_theta", theta), n_ctx, n_original)


def _variant(read: HfConfig, theta: float, n_ctx: int, n_original: int | None) -> Rope:
    kinds = {kind: kind for kind in ("default", "linear", "dynamic", "llama3", "yarn")}
    # "type" is the older spelling; where both stand, HuggingFace reads "rope_type".
    older = "default" if read.has("rope_type") else read.choice("type", kinds, "default")
    if read.has("rope_type") and read.has("type"):
        read.choice("type", kinds)
    match read.choice("rope_type", kinds, older):
        case "linear":
            return LinearRope(theta=theta, factor=read.number("factor"))
        case "dynamic":
            # From max_position_embeddings, also where an original length stands in the config:
            # HuggingFace does not read that one here, and the fence will say so.
            return DynamicRope(theta=theta, factor=read.number("factor"), original_n_ctx=n_ctx)
        case "llama3":
            return Llama3Rope(
                theta=theta,
                factor=read.number("factor"),
                low_freq_factor=read.number("low_freq_factor"),
                high_freq_factor=read.number("high_freq_factor"),
                original_n_ctx=_original(read, n_ctx, n_original),
            )
        case "yarn":
            return _yarn(read, theta, n_ctx, n_original)
        case _:
            return DefaultRope(theta=theta)


def _original(read: HfConfig, n_ctx: int, n_original: int | None) -> int:
    inner = read.integer("original_max_position_embeddings", n_ctx)
    return inner if n_original is None else n_original


def _yarn(read: HfConfig, theta: float, n_ctx: int, n_original: int | None) -> YarnRope:
    original = _original(read, n_ctx, n_original)
    # Null stands for the ratio of the lengths; HuggingFace fails if the key is not there at all.
    factor = (
        read.number("factor", n_ctx / original) if read.null("factor") else read.number("factor")
    )
    both = read.has("mscale") and read.has("mscale_all_dim")
    mscale = read.number("mscale", 1.0)
    mscale_all_dim = read.number("mscale_all_dim", 1.0)
    inferred = (
        _temper(factor, mscale) / _temper(factor, mscale_all_dim) if both else _temper(factor, 1.0)
    )
    return YarnRope(
        theta=theta,
        factor=factor,
        original_n_ctx=original,
        beta_fast=read.number("beta_fast", 32.0),
        beta_slow=read.number("beta_slow", 1.0),
        attention_factor=read.number("attention_factor", inferred),
        # Null counts as false, absence as true.
        truncate=read.flag("truncate", not read.null("truncate")),
    )


def _temper(factor: float, mscale: float) -> float:
    """Return yarn's factor on cosine and sine for a stretch of `factor` (arXiv:2309.00071 §3.4)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
