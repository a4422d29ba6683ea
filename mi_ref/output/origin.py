"""Where runs, states and results come from: what has to be known of a model once it is gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from mi_ref.errors import TokenError
from mi_ref.output.fingerprint import Fingerprint
from mi_ref.whole_numbers import whole_number


@runtime_checkable
class TokenTexts(Protocol):
    """Tokens as texts, and back: what results need of a tokenizer."""

    def shown(self, id: int) -> str:
        """Return a token as text, ``<id 9>`` where there is none."""

    def single_id(self, text: str) -> int:
        """Return the id of a text that is exactly one token, else raise a `TokenError`."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Origin:
    """The model that something was computed with, by name and facts, without its weights.

    Small, and pickled with whatever holds it; see `same_model` for how two are compared.
    """

    name: str
    """The checkpoint, as the caller gave it."""
    revision: str | None
    """Commit on the Hub; None for a folder or a bundled model."""
    weights: Fingerprint = field(repr=False)
    """Identifies the weight files."""
    model_type: str
    unread_config: tuple[str, ...]
    """Keys of ``config.json`` that the caller allowed to go unread."""
    inferred: tuple[str, ...]
    """What was inferred from tensors, of a model whose family is unknown."""
    compat: str | None
    """The program whose deviations from HuggingFace were asked for."""
    structure: str = field(repr=False)
    """SHA-256 of the whole structure as data."""
    d_vocab: int
    backend: str
    device: str
    dtype: str
    versions: Mapping[str, str] = field(repr=False)
    """Versions of this package, the array library, ``tokenizers`` and Python."""
    tokenizer: TokenTexts = field(repr=False)
    altered: str | None
    """None for a model as it was loaded, else a mark that no other model has."""

    def same_model(self, other: Origin) -> bool:
        """Whether both are of one model, or of two that compute the same.

        Two loads of the same weights and structure in the same dtype on the same backend are the
        same model, in this process or in another. A model that was changed by hand is the same as
        itself alone. Weights are read, once, only where everything else agrees.
        """
        return self is other or (
            all(getattr(self, fact) == getattr(other, fact) for fact in _IDENTIFYING)
            and self.weights == other.weights
        )

    def token_string(self, token: int) -> str:
        """Return one token as text; ids that the tokenizer does not know show as ``<id 9>``."""
        return self.tokenizer.shown(token)

    def token_id(self, token: str | int) -> int:
        """Return the id of a token given as itself: an id, or a text that is exactly one token.

        Raises
        ------
        TokenError
            If the text is not one token, or the id is out of range.
        """
        if isinstance(token, str):
            return self.tokenizer.single_id(token)
        try:
            found = whole_number(token)
        except TypeError:
            found = -1
        if not 0 <= found < self.d_vocab:
            raise TokenError(
                f"token id {token} is out of range: it is a whole number, and d_vocab is"
                f" {self.d_vocab}."
            )
        return found

    def record(self, *, seed: int | None = None) -> dict[str, Any]:
        """Return what identifies a computation, ready for JSON.

        Parameters
        ----------
        seed : int or None
            The seed of any randomness that took part; None if none did.
        """
        return {
            "model": self.name,
            "revision": self.revision,
            "weights_sha256": self.weights.sha256(),
            "model_type": self.model_type,
            "unread_config": list(self.unread_config),
            "inferred": list(self.inferred),
            "compat": self.compat,
            "backend": self.backend,
            "device": self.device,
            "dtype": self.dtype,
            "seed": seed,
            "versions": dict(self.versions),
        }


_IDENTIFYING = ("altered", "structure", "dtype", "backend", "device")
