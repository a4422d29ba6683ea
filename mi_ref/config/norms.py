"""The kinds of norm, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSNorm:
    """``x / sqrt(mean(x²) + eps) * gain``."""

    eps: float
    unit_offset: bool
    """Whether checkpoints store ``gain - 1``; `mi_ref.params` always holds the gain itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm:
    """``(x - mean(x)) / sqrt(var(x) + eps) * gain + bias``."""

    eps: float


NormKind: TypeAlias = RMSNorm | LayerNorm
