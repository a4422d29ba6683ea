"""Deviations of other programs from HuggingFace, on request, to reproduce their figures.

``compat="candle-mi"`` computes as candle-mi 0.1 does: rotary embedding without scaling and of the
whole head; windows one key wider; Phi-3 and Qwen 2 without windows; a logit lens without the final
soft-cap. Off by default, and recorded with every result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

from mi_ref.config.decoder import Causal, DecoderConfig, Layer, Mask, Window
from mi_ref.config.rope import DefaultRope, Rotary
from mi_ref.errors import ArgumentError, ConfigError

CANDLE_MI = "candle-mi"
_RUN_BY_CANDLE_MI = (
    "gemma", "gemma2", "llama", "mistral", "phi3", "qwen2", "rwkv6", "rwkv7", "starcoder2"
)  # fmt: skip
_WITHOUT_WINDOW = ("phi3", "qwen2")


def with_compat(cfg: DecoderConfig, compat: str | None) -> DecoderConfig:
    """Return `cfg` with another program's deviations.

    Parameters
    ----------
    cfg : DecoderConfig
        The decoder as HuggingFace runs it.
    compat : {"candle-mi"} or None
        The program; None for no deviations.

    Raises
    ------
    ArgumentError
        If there is no such program.
    ConfigError
        If it does not run the family.
    """
    if compat is None:
        return cfg
    if compat != CANDLE_MI:
        raise ArgumentError(f"compat={compat!r}: expected {CANDLE_MI!r} or None.")
    if cfg.model_type not in _RUN_BY_CANDLE_MI:
        raise ConfigError(
            f"compat={compat!r}: candle-mi does not run {cfg.model_type}, only"
            f" {', '.join(_RUN_BY_CANDLE_MI)}. Load the model without compat=."
        )
    windowed = cfg.model_type not in _WITHOUT_WINDOW
    layers = tuple(
        _deviating(layer, windowed) if isinstance(layer, Layer) else layer for layer in cfg.layers
    )
    return replace(cfg, layers=layers, reading=replace(cfg.reading, compat=compat))


def _deviating(layer: Layer, windowed: bool) -> Layer:
    attn = layer.attn
    rotary = attn.rotary
    if rotary is not None:
        rotary = Rotary(rope=DefaultRope(theta=rotary.rope.theta), dims=attn.d_head)
    mask = _widened(attn.mask) if windowed else Causal()
    return replace(layer, attn=replace(attn, rotary=rotary, mask=mask))


def _widened(mask: Mask) -> Mask:
    match mask:
        case Causal():
            return mask
        case Window(size=size):
            return Window(size=size + 1)
        case _:
            assert_never(mask)
