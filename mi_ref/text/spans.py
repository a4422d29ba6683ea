"""The span of each token of a text, in characters and in UTF-8 bytes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TypeAlias

from mi_ref.errors import TokenError

Span: TypeAlias = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Encoding:
    """The token ids of one text, and the span of each in it.

    `tokens` holds each id on its own, as `Tokenizer.token_string` shows it. Spans are half-open,
    `char_spans` in characters (``text[start:end]``) and `byte_spans` in UTF-8 bytes. They are None
    for special tokens that the text does not contain. Tokens that share a character all have it in
    their `char_spans`, and their `byte_spans` divide it exactly, unless the tokenizer rewrote that
    character (Unicode composition, unknown token). A space that the tokenizer itself puts before a
    text is not in the text: a token that holds nothing else has an empty span.
    """

    text: str
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    char_spans: tuple[Span | None, ...]
    byte_spans: tuple[Span | None, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def char_to_token(self, char: int) -> int | None:
        """Return the position of the first token with character `char`; None if none has it."""
        return next(iter(self.span_to_tokens(char, char + 1)), None)

    def byte_to_token(self, byte: int) -> int | None:
        """Return the position of the first token with UTF-8 byte `byte`; None if none has it."""
        found = _overlapping(self.byte_spans, byte, byte + 1, len(self.text.encode()), "bytes")
        return next(iter(found), None)

    def span_to_tokens(self, start: int, end: int) -> tuple[int, ...]:
        """Return the positions of all tokens that share a character with ``text[start:end]``.

        Raises
        ------
        TokenError
            If the span is empty or leaves the text, as when ``str.find`` found nothing.
        """
        return _overlapping(self.char_spans, start, end, len(self.text), "characters")


def places(
    text: str, pieces: Sequence[bytes], offsets: Sequence[Span]
) -> tuple[list[Span], list[Span]]:
    """Return the character and byte spans of tokens whose character offsets may overlap.

    Tokens that overlap are divided by the lengths of their own bytes, `pieces`, where these are the
    bytes of the text, or one space that the tokenizer added and then those bytes.
    """
    byte_at = [0, *accumulate(len(char.encode()) for char in text)]
    chars: list[Span] = []
    spans: list[Span] = []
    while len(chars) < len(offsets):
        first = len(chars)
        start, end = offsets[first]
        stop = first + 1
        while stop < len(offsets) and offsets[stop][0] < end:
            end = max(end, offsets[stop][1])
            stop += 1
        # Composition (NFC) leaves all but the first of the composed characters without a token.
        gap_end = offsets[stop][0] if stop < len(offsets) else len(text)
        full_end = end if any(map(str.isspace, text[end:gap_end])) else gap_end
        own, joined = text[start:full_end].encode(), b"".join(pieces[first:stop])
        if joined in (own, b" " + own):
            cuts = list(accumulate(map(len, pieces[first:stop]), initial=0))
            shift = byte_at[start] + len(own) - len(joined)
            cuts = [max(byte_at[start], cut + shift) for cut in cuts]
            spans += pairwise(cuts)
            for a, b in pairwise(cuts):
                left = bisect_right(byte_at, a) - 1
                chars.append((left, bisect_right(byte_at, b - 1) if b > a else left))
        else:
            ends = [full_end if e == end else e for _, e in offsets[first:stop]]
            chars += [(s, e) for (s, _), e in zip(offsets[first:stop], ends, strict=True)]
            spans += [(byte_at[s], byte_at[e]) for s, e in chars[first:]]
    return chars, spans


def _overlapping(
    spans: Sequence[Span | None], start: int, end: int, size: int, unit: str
) -> tuple[int, ...]:
    if not 0 <= start < end <= size:
        raise TokenError(
            f"span {start} to {end}: expected a non-empty span inside the text of {size} {unit}"
        )
    return tuple(n for n, span in enumerate(spans) if span and span[0] < end and start < span[1])
