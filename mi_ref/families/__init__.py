"""Families: how each HuggingFace ``model_type`` spells its config and names its weights.

A family file reads a config and names tensors; it computes nothing. Every family is listed below.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mi_ref.config.decoder import DecoderConfig
from mi_ref.families import (
    gemma,
    gemma2,
    gemma3_text,
    gpt2,
    gpt_neox,
    llama,
    mistral,
    mixtral,
    olmo2,
    phi,
    phi3,
    qwen2,
    qwen3,
    qwen3_moe,
    rwkv6,
    rwkv7,
    starcoder2,
)
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.weight_names import WeightNames


@dataclass(frozen=True, slots=True)
class Family:
    """What the loader needs to know about a family."""

    model_type: str
    read_config: Callable[[HfConfig], DecoderConfig]
    weight_names: WeightNames


_MODULES = {
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "phi3": phi3,
    "phi": phi,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3_text": gemma3_text,
    "starcoder2": starcoder2,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "olmo2": olmo2,
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
    "rwkv6": rwkv6,
    "rwkv7": rwkv7,
}

FAMILIES = {
    model_type: Family(model_type, module.read_config, module.WEIGHT_NAMES)
    for model_type, module in _MODULES.items()
}
"""Every supported ``model_type``."""
