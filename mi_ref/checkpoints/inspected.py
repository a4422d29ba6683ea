"""Facts about a checkpoint that its headers show, and the reasons to refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mi_ref.checkpoints.nearest import Fit
from mi_ref.checkpoints.recognise import unsupported
from mi_ref.config.decoder import DecoderConfig


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a checkpoint's tokenizer is."""

    kind: str | None
    """``BPE``, ``World``, …; None without a readable tokenizer, which only text needs."""
    size: int | None
    """Number of tokens."""
    bos: str | None
    """The token that begins a sequence."""
    adds_bos: bool | None
    """Whether `bos` is added to a text by default."""
    problem: str | None
    """Why there is no readable tokenizer; None if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a checkpoint is, and every reason for which it would be refused."""

    name: str
    revision: str | None
    model_type: str | None
    fit: Fit
    """How it fits its family or, if its ``model_type`` is unknown, the nearest one."""
    supported: bool
    """Whether its ``model_type`` has a family, or its structure could be inferred."""
    damage: str | None
    """Why the tensors' headers cannot be read; None if they can."""
    n_tensors: int
    stored: Mapping[str, tuple[int, int]]
    """Parameters and bytes by stored dtype, without tensors that contain no parameters."""
    tokenizer: TokenizerFacts

    @property
    def config(self) -> DecoderConfig | None:
        """The decoder; None if the family is unknown or the config faulty, rather than a guess."""
        return self.fit.config if self.supported and not self.fit.faults else None

    @property
    def n_params(self) -> int:
        """Number of parameters."""
        return sum(count for count, _ in self.stored.values())

    @property
    def refusals(self) -> tuple[str, ...]:
        """All reasons for which loading would fail; empty if it would succeed."""
        damage = () if self.damage is None else (self.damage,)
        unknown = () if self.supported else (unsupported(self.model_type),)
        return (*unknown, *damage, *self.fit.sentences(names_only=not self.supported))
