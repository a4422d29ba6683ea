"""What is found out about a checkpoint from its headers: facts, and reasons to refuse it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mi_ref.config import DecoderConfig
from mi_ref.fitting import Fit
from mi_ref.recognise import unsupported


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a checkpoint's tokenizer does."""

    kind: str | None
    """``BPE``, ``World``, …; None without one that can be read, which only text needs."""
    size: int | None
    bos: str | None
    """The token that starts a sequence."""
    adds_bos: bool | None
    """Whether a text gets it unasked."""
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a checkpoint is, and everything for which it would be refused."""

    name: str
    revision: str | None
    model_type: str | None
    fit: Fit
    """How it fits its family; or, if its ``model_type`` is unknown, the nearest one."""
    supported: bool
    """Whether its ``model_type`` is a family of this package, or its structure was inferred."""
    damage: str | None
    """Why the tensors' headers cannot be read; None if they can."""
    n_tensors: int
    stored: Mapping[str, tuple[int, int]]
    """Numbers and bytes by the dtype they are stored in; what carries nothing is left out."""
    tokenizer: TokenizerFacts

    @property
    def config(self) -> DecoderConfig | None:
        """What it is; None where the family is unknown or the config faulty: no guesses."""
        return self.fit.config if self.supported and not self.fit.faults else None

    @property
    def n_params(self) -> int:
        """Numbers in the weights."""
        return sum(count for count, _ in self.stored.values())

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why loading would stop, all reasons at once; empty if it would not."""
        damage = () if self.damage is None else (self.damage,)
        unknown = () if self.supported else (unsupported(self.model_type),)
        return (*unknown, *damage, *self.fit.sentences(names_only=not self.supported))
