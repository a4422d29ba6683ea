"""Rotary position embedding: its variants as data, and the angles of each.

Each pair of coordinates ``(i, i + d/2)`` of a query or key is rotated by ``position *
inv_freq[i]``; variants differ in ``inv_freq`` and in a factor on cosine and sine. ``d`` is the
number of a head's coordinates that are rotated, often all of them.

Everything is computed in float64 and cast at the end. In float32 the angle at position 2,000 would
be off by up to 1e-4, which is more than all other rounding errors of a float32 pass combined.

Source: transformers 5.23.0 ``modeling_rope_utils.py``; arXiv:2104.09864 (RoPE), 2309.00071 (yarn).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultRope:
    """``inv_freq[i] = theta^(-2i/d)``."""

    theta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearRope:
    """All frequencies divided by `factor`, which interpolates positions."""

    theta: float
    factor: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamicRope:
    """A base that grows with the length of the sequence beyond `original_n_ctx`."""

    theta: float
    factor: float
    original_n_ctx: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Llama3Rope:
    """Low frequencies divided by `factor`, high ones kept, a smooth transition between them."""

    theta: float
    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_n_ctx: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YarnRope:
    """Interpolation by frequency, with a factor on cosine and sine."""

    theta: float
    factor: float
    original_n_ctx: int
    beta_fast: float
    beta_slow: float
    attention_factor: float
    """Multiplies cosine and sine; computed from ``mscale`` if the config gives that."""
    truncate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LongRope:
    """Each frequency divided by its own factor, from one list for short sequences, one for long."""

    theta: float
    short_factors: tuple[float, ...]
    long_factors: tuple[float, ...]
    """For all positions of sequences longer than `original_n_ctx`."""
    original_n_ctx: int
    attention_factor: float
    """Multiplies cosine and sine at all lengths; computed from the ratio of the lengths."""


Rope: TypeAlias = DefaultRope | LinearRope | DynamicRope | Llama3Rope | YarnRope | LongRope


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotary:
    """Rotary embedding of one layer's queries and keys."""

    rope: Rope
    dims: int
    """How many of a head's coordinates are rotated, from the first on."""
