"""Text wrapped at a width, and how far into its line each token starts."""

from __future__ import annotations

from typing import Literal, TypeAlias

from mi_ref.errors import ShapeError
from mi_ref.text.spans import Encoding

Unit: TypeAlias = Literal["characters", "bytes"]
"""What widths and counts are in; bytes are those of UTF-8."""


def rewrap(text: str, width: int, *, unit: Unit = "characters") -> str:
    """Return a text in lines as long as fit into `width`, each filled before the next begins.

    All white space between words counts as one space; a word that is longer than the width has a
    line to itself.

    Raises
    ------
    ShapeError
        If the width is below 1.
    """
    if width < 1:
        raise ShapeError(f"width={width}: a line has room for one of its {unit} at least.")
    lines: list[str] = []
    for word in text.split():
        if lines and _size(lines[-1], unit) + 1 + _size(word, unit) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def counts_in_line(encoding: Encoding, *, unit: Unit = "characters") -> tuple[int | None, ...]:
    """Return how much of its line stands before each token's start.

    0 for what starts a line; None for special tokens, which the text does not contain. A newline
    belongs to the line that it ends.
    """
    spans = encoding.char_spans if unit == "characters" else encoding.byte_spans
    # Each place of a character in a text, or of a byte in its bytes.
    text = encoding.text if unit == "characters" else encoding.text.encode().decode("latin-1")
    return tuple(
        None if span is None else span[0] - (text.rfind("\n", 0, span[0]) + 1) for span in spans
    )


def _size(text: str, unit: Unit) -> int:
    return len(text) if unit == "characters" else len(text.encode())
