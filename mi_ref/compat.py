"""Deviations of other programs from HuggingFace, on request, so that their figures can be repeated.

``compat="candle-mi"`` computes as candle-mi 0.1 does: rotary embedding without scaling, on the
whole head; windows one key wider; Phi-3 and Qwen 2 without windows; a logit lens without the final
soft-cap. Off by default, and recorded wherever a result is.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config import DecoderConfig, Layer
from mi_ref.errors import ConfigError
from mi_ref.rope import DefaultRope, Rotary

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
        As HuggingFace runs it.
    compat : {"candle-mi"} or None
        Whose deviations; None for nobody's.

    Raises
    ------
    ConfigError
        If there is no such program, or it does not run the family.
    """
    if compat is None:
        return cfg
    if compat != CANDLE_MI:
        raise ConfigError(f"compat={compat!r}: it is {CANDLE_MI!r} or None.")
    if cfg.model_type not in _RUN_BY_CANDLE_MI:
        raise ConfigError(
            f"compat={compat!r}: candle-mi does not run {cfg.model_type}, only"
            f" {', '.join(_RUN_BY_CANDLE_MI)}."
        )
    windowed = cfg.model_type not in _WITHOUT_WINDOW
    if cfg.recurrent:
        return replace(cfg, compat=compat)
    layers = tuple(_deviating(layer, windowed) for layer in cfg.blocks)
    return replace(cfg, layers=layers, compat=compat)


def _deviating(layer: Layer, windowed: bool) -> Layer:
    attn = layer.attn
    rotary = attn.rotary
    if rotary is not None:
        rotary = Rotary(rope=DefaultRope(theta=rotary.rope.theta), dims=attn.d_head)
    window = attn.window + 1 if windowed and attn.window is not None else None
    return replace(layer, attn=replace(attn, rotary=rotary, window=window))
