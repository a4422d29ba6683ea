"""Configs of a family, given only their keys."""

from __future__ import annotations

from typing import Any

from mi_ref.config import DecoderConfig
from mi_ref.families import FAMILIES
from mi_ref.hf_config import HfConfig


def parse(family: str, **keys: Any) -> DecoderConfig:
    """Read a config.json with these keys, each of which must be read."""
    read = HfConfig({"model_type": family, **keys}, source="config.json", family=family)
    cfg = FAMILIES[family].read_config(read)
    read.done()
    return cfg
