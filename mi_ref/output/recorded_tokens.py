"""The tokens of a saved result, which has no tokenizer any more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mi_ref.errors import TokenError


@dataclass(frozen=True, slots=True)
class RecordedTokens:
    """Tokens as texts, and back, as far as they were written down."""

    texts: Mapping[int, str]
    """By id."""

    def shown(self, id: int) -> str:
        """Return a token as text, ``<id 9>`` if it was not written down."""
        return self.texts.get(id, f"<id {id}>")

    def single_id(self, text: str) -> int:
        """Return the id of a text that is one of the tokens written down.

        Raises
        ------
        TokenError
            If it is none of them.
        """
        for id, written in self.texts.items():
            if written == text:
                return id
        raise TokenError(
            f"{text!r} is not a token of this saved result, which has no tokenizer. Load the model"
            " to look up others, or pass the id."
        )
