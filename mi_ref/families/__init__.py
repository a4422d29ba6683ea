"""Families: how each HuggingFace ``model_type`` spells its config and its weights.

A family file reads; it does not compute. The registry below is all there is to know about which
families exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mi_ref.config import DecoderConfig
from mi_ref.families import llama
from mi_ref.hf_config import HfConfig
from mi_ref.params import WeightNames


@dataclass(frozen=True, slots=True)
class Family:
    """What the loader needs of a family."""

    model_type: str
    read_config: Callable[[HfConfig], DecoderConfig]
    weight_names: WeightNames


FAMILIES = {
    family.model_type: family
    for family in (Family("llama", llama.read_config, llama.WEIGHT_NAMES),)
}
"""Every supported ``model_type``."""
