"""The structure of one layer's attention, as data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, assert_never

from mi_ref.config.norms import NormKind
from mi_ref.config.rope import Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class QKNorm:
    """One norm of the queries and one of the keys, between projection and rotary embedding."""

    norm: NormKind
    per_head: bool
    """Whether each head is normalized separately, or the whole projection at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreCap:
    """A soft bound on attention scores: ``limit * tanh(score / limit)``, before the mask."""

    limit: float


AttentionExtra: TypeAlias = QKNorm | ScoreCap
"""Parts that only some models' attention has."""


@dataclass(frozen=True, slots=True)
class Causal:
    """A query sees its own key and all keys before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A query sees its own key and those before it, `size` keys at most."""

    size: int


Mask: TypeAlias = Causal | Window
"""Which keys a query sees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Causal self-attention of one layer."""

    n_heads: int
    n_key_value_heads: int
    """Key and value heads; each serves ``n_heads / n_key_value_heads`` successive query heads."""
    d_head: int
    scale: float
    """Multiplies q·k; ``1/sqrt(d_head)`` in most families."""
    mask: Mask
    rotary: Rotary | None
    """None if positions enter elsewhere."""
    extras: tuple[AttentionExtra, ...]
    """At most one of each kind."""
    bias_qkv: bool
    bias_out: bool

    @property
    def window(self) -> int | None:
        """How many keys a query sees, its own included; None for all keys up to its own."""
        match self.mask:
            case Causal():
                return None
            case Window(size=size):
                return size
            case _:
                assert_never(self.mask)

    @property
    def qk_norm(self) -> QKNorm | None:
        """The norms of queries and keys, if any."""
        found = None
        for extra in self.extras:
            match extra:
                case QKNorm():
                    found = extra
                case ScoreCap():
                    pass
                case _:
                    assert_never(extra)
        return found

    @property
    def softcap(self) -> float | None:
        """The soft bound on scores, if any."""
        found = None
        for extra in self.extras:
            match extra:
                case ScoreCap(limit=limit):
                    found = limit
                case QKNorm():
                    pass
                case _:
                    assert_never(extra)
        return found
