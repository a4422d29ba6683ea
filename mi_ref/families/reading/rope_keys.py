"""Reading the rotary variant from a HuggingFace config, in the old or the new style."""

from __future__ import annotations

import math
from collections.abc import Mapping

from mi_ref.config.rope import (
    DefaultRope,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    Rope,
    Rotary,
    YarnRope,
)
from mi_ref.families.reading.config_file import HfConfig

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
"""Rotary variants by HuggingFace's names."""


def read_rope(
    read: HfConfig,
    *,
    n_ctx: int,
    d_head: int,
    default_theta: float,
    theta_key: str = "rope_theta",
    partial_key: str | None = None,
    default_partial: float = 1.0,
    default_original: int | None = None,
    kinds: tuple[str, ...] = KINDS,
) -> Rotary:
    """Return the rotary embedding that a config describes.

    Old files have ``rope_theta`` and ``rope_scaling`` (``type`` or ``rope_type``); transformers 5
    writes a single ``rope_parameters``. If a file has both, ``rope_scaling`` wins, as in
    transformers.

    Parameters
    ----------
    read : HfConfig
        The config.
    n_ctx : int
        Positions that the model was trained for.
    d_head : int
        Width of a head.
    default_theta : float
        Default of the base.
    theta_key : str
        Key of the base in old files.
    partial_key : str or None
        Key of the rotated fraction of a head in old files; None if the whole head is rotated.
    default_partial : float
        Default of that fraction.
    default_original : int or None
        Default of the positions before scaling, if they are given outside the rope parameters;
        None if they are given inside.
    kinds : tuple of str
        The variants that the family supports.

    Source: transformers 5.23.0 ``RotaryEmbeddingConfigMixin``.
    """
    theta = read.number(theta_key, default_theta)
    partial = 1.0 if partial_key is None else read.number(partial_key, default_partial)
    old, new = read.section("rope_scaling"), read.section("rope_parameters")
    key, values = ("rope_scaling", old) if old else ("rope_parameters", new)
    inner = read.nested(key, values)
    theta = inner.number("rope_theta", theta)
    if partial_key is not None:
        partial = inner.number("partial_rotary_factor", partial)
    original = "original_max_position_embeddings"
    # If both are given, HuggingFace uses the outer original length.
    outside = read.has(original) or default_original is not None
    n_original = read.integer(original, default_original or n_ctx) if outside else None
    return rotary(
        inner, theta, n_ctx=n_ctx, n_original=n_original, width=d_head * partial, kinds=kinds
    )


def read_rope_by_type(
    read: HfConfig,
    *,
    n_ctx: int,
    d_head: int,
    thetas: Mapping[str, tuple[str, float]],
    scaled: str,
) -> dict[str, Rotary]:
    """Return the rotary embedding of each type of layer.

    Parameters
    ----------
    read : HfConfig
        The config; transformers 5 nests its ``rope_parameters`` by type of layer.
    n_ctx, d_head
        As for `read_rope`.
    thetas : mapping
        For each type of layer, the key of its base in old files, and the default of the base.
    scaled : str
        The type that the ``rope_scaling`` of old files applies to.
    """
    outer = read.nested("rope_parameters", read.section("rope_parameters"))
    found = {}
    for kind, (key, default) in thetas.items():
        theta = read.number(key, default)
        old = read.section("rope_scaling") if kind == scaled else {}
        inner = read.nested(f"rope_parameters.{kind}", {**outer.section(kind), **old})
        theta = inner.number("rope_theta", theta)
        found[kind] = rotary(inner, theta, n_ctx=n_ctx, n_original=None, width=float(d_head))
    return found


def rotary(
    read: HfConfig,
    theta: float,
    *,
    n_ctx: int,
    n_original: int | None,
    width: float,
    kinds: tuple[str, ...] = KINDS,
) -> Rotary:
    """Return the rotary embedding that one set of rope parameters describes.

    Parameters
    ----------
    read : HfConfig
        The parameters.
    theta : float
        Base.
    n_ctx : int
        Positions that the model was trained for.
    n_original : int or None
        Positions that it was trained for before scaling, if the config gives them outside `read`.
    width : float
        How many coordinates of a head are rotated; rounded down.
    kinds : tuple of str
        The variants allowed.
    """
    dims = int(width)
    read.require(
        dims % 2 == 0 and dims > 0,
        f"rotary embedding: expected an even number of a head's coordinates, got {dims}",
    )
    return Rotary(rope=_variant(read, theta, n_ctx, n_original, dims, kinds), dims=dims)


def _variant(
    read: HfConfig,
    theta: float,
    n_ctx: int,
    n_original: int | None,
    dims: int,
    kinds: tuple[str, ...],
) -> Rope:
    names = {kind: kind for kind in kinds}
    if "longrope" in kinds:
        names["su"] = "longrope"
    # "type" is the older spelling; if both are given, HuggingFace reads "rope_type".
    older = "default" if read.has("rope_type") else read.choice("type", names, "default")
    if read.has("rope_type") and read.has("type"):
        read.choice("type", names)
    match read.choice("rope_type", names, older):
        case "linear":
            return LinearRope(theta=theta, factor=read.number("factor"))
        case "dynamic":
            # HuggingFace uses max_position_embeddings here and does not read an original length,
            # which the fence therefore refuses.
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
        case "longrope":
            return _longrope(read, theta, n_ctx, n_original, dims)
        case _:
            return DefaultRope(theta=theta)


def _longrope(
    read: HfConfig, theta: float, n_ctx: int, n_original: int | None, dims: int
) -> LongRope:
    original = _original(read, n_ctx, n_original)
    factor = read.number("factor", n_ctx / original)
    inferred = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return LongRope(
        theta=theta,
        short_factors=read.numbers("short_factor", dims // 2),
        long_factors=read.numbers("long_factor", dims // 2),
        original_n_ctx=original,
        attention_factor=read.number("attention_factor", inferred),
    )


def _original(read: HfConfig, n_ctx: int, n_original: int | None) -> int:
    inner = read.integer("original_max_position_embeddings", n_ctx)
    return inner if n_original is None else n_original


def _yarn(read: HfConfig, theta: float, n_ctx: int, n_original: int | None) -> YarnRope:
    original = _original(read, n_ctx, n_original)
    # Null means the ratio of the lengths; HuggingFace fails if the key is absent.
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
        # Null means false, absence true.
        truncate=read.flag("truncate", not read.null("truncate")),
    )


def _temper(factor: float, mscale: float) -> float:
    """Return yarn's factor on cosine and sine for a stretch by `factor` (arXiv:2309.00071 §3.4)."""
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
