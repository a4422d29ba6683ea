"""Which tokens a piece of text is: positions by character or byte, and labels for spans.

Labels follow candle-mi: every token that shares a character with a span bears the span's name,
the last of them the name with ``_final`` (where facts about a subject gather, as Meng et al. 2022,
arXiv:2202.05262, found); other tokens are ``other``. Of overlapping spans the first one wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mi_ref.errors import ArgumentError, TokenError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.spans import Encoding, Span

Unit: TypeAlias = Literal["characters", "bytes"]
OTHER, FINAL = "other", "_final"


@dataclass(frozen=True, slots=True)
class Place:
    """The token at one place of a text."""

    place: int
    """In characters or bytes, as asked."""
    position: int | None
    """Position of the token in the prompt; None if no token has the place."""
    token: str | None
    exact: bool
    """Whether the token begins there."""


@dataclass(frozen=True, slots=True, repr=False)
class TokenPositions(Result):
    """A prompt's tokens, where each stands in the text, and a label for each.

    Attributes
    ----------
    encoding : Encoding
        Ids, tokens, spans in characters and bytes; None for tokens that the text does not contain.
    labels : tuple of str
        One per token.
    origin : Origin
        The model, without its weights.
    """

    encoding: Encoding
    labels: tuple[str, ...]
    origin: Origin = field(compare=False)

    def positions(self, label: str) -> tuple[int, ...]:
        """Return where tokens of a span stand, its last one included; ready for ``positions=``.

        Raises
        ------
        TokenError
            If no token bears the label.
        """
        found = [n for n, own in enumerate(self.labels) if own in (label, label + FINAL)]
        if not found:
            known = ", ".join(sorted(set(self.labels)))
            raise TokenError(f"no token is labelled {label!r}; there are {known}.")
        return tuple(found)

    def table(self) -> Table:
        """Return one row per token."""
        table = Table([">pos", "token", ">id", ">characters", ">bytes", "label"])
        columns = zip(
            self.encoding.tokens, self.encoding.ids, self.encoding.char_spans,
            self.encoding.byte_spans, self.labels, strict=True,
        )  # fmt: skip
        for n, (token, number, chars, octets, label) in enumerate(columns):
            table.add(n, repr(token), number, _shown(chars), _shown(octets), label)
        return table

    def record(self) -> dict[str, Any]:
        """Return the text, its tokens, spans and labels."""
        return record_of(
            self,
            "token_positions",
            self.encoding.ids,
            text=self.encoding.text,
            char_spans=[_listed(span) for span in self.encoding.char_spans],
            byte_spans=[_listed(span) for span in self.encoding.byte_spans],
            labels=list(self.labels),
        )


def token_positions(
    model: Model,
    text: str,
    labels: Mapping[str, str | Span] | None = None,
    *,
    prepend_bos: bool | None = None,
) -> TokenPositions:
    """Say where each token of a text stands, and which labelled span it belongs to.

    Parameters
    ----------
    model : Model
        Whose tokenizer cuts the text.
    text : str
        One prompt, as `Model.run` takes it.
    labels : mapping or None
        Label to the text it is for, which must occur exactly once, or to its span in characters.
    prepend_bos : bool or None
        As for `Model.run`.
    """
    encoding = model.tokenizer.encode(text, prepend_bos=prepend_bos)
    spans = [(name, _span(text, what, name)) for name, what in (labels or {}).items()]
    return TokenPositions(encoding, label_spans(encoding, spans), model.origin)


def label_spans(
    encoding: Encoding, spans: Sequence[tuple[str, Span]], *, unit: Unit = "characters"
) -> tuple[str, ...]:
    """Return a label for each token; of spans that share a token the first one has it.

    Parameters
    ----------
    encoding : Encoding
        The encoded text.
    spans : sequence of (label, (start, end))
        Half-open, in `unit`.
    unit : {"characters", "bytes"}
        Whether places count the text's characters or the bytes of its UTF-8.

    Raises
    ------
    TokenError
        If a span is empty, leaves the text, or has no token.
    """
    labels = [OTHER] * len(encoding)
    for name, (start, end) in reversed(spans):
        found = tokens_of(encoding, start, end, unit=unit)
        if not found:
            raise TokenError(f"no token stands in {name!r}, {unit} {start} to {end}.")
        for position in found:
            labels[position] = name + FINAL * (position == found[-1])
    return tuple(labels)


def tokens_of(
    encoding: Encoding, start: int, end: int, *, unit: Unit = "characters"
) -> tuple[int, ...]:
    """Return the positions of all tokens that share some of ``[start, end)``.

    Tokens of no length share nothing.

    Raises
    ------
    TokenError
        If the span is empty or leaves the text.
    """
    _check_unit(unit)
    spans, size = _spans(encoding, unit)
    if not 0 <= start < end <= size:
        raise TokenError(f"span {start} to {end} is empty or outside the text of {size} {unit}.")
    return tuple(n for n, own in enumerate(spans) if own and max(own[0], start) < min(own[1], end))


def convert_positions(
    encoding: Encoding, places: Sequence[int], *, unit: Unit = "characters"
) -> tuple[Place, ...]:
    """Return the token at each place of the text, the first one if several share it.

    A place outside the text has no token.
    """
    _check_unit(unit)
    spans, size = _spans(encoding, unit)
    found = []
    for place in places:
        inside = 0 <= place < size
        at = tokens_of(encoding, place, place + 1, unit=unit)[:1] if inside else ()
        position = at[0] if at else None
        own = None if position is None else spans[position]
        found.append(
            Place(
                place,
                position,
                None if position is None else encoding.tokens[position],
                own is not None and own[0] == place,
            )
        )
    return tuple(found)


def _span(text: str, what: str | Span, name: str) -> Span:
    if not isinstance(what, str):
        return what
    count = text.count(what) if what else 0
    if count != 1:
        raise TokenError(
            f"{name!r}: {what!r} occurs {count} times in {text!r}; give its span in characters."
        )
    start = text.index(what)
    return start, start + len(what)


def _spans(encoding: Encoding, unit: Unit) -> tuple[Sequence[Span | None], int]:
    """Return every token's span and the length of the text, both in `unit`."""
    if unit == "characters":
        return encoding.char_spans, len(encoding.text)
    return encoding.byte_spans, len(encoding.text.encode())


def _check_unit(unit: str) -> None:
    if unit not in ("characters", "bytes"):
        raise ArgumentError(f"unit={unit!r}: expected 'characters' or 'bytes'.")


def _shown(span: Span | None) -> str:
    return "" if span is None else f"{span[0]}–{span[1]}"


def _listed(span: Span | None) -> list[int] | None:
    return None if span is None else list(span)
