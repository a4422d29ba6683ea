"""Tokens of a span of text, compared with spans counted by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mi_ref import Model, TokenError
from mi_ref.analysis.geometry.token_positions import (
    Place,
    convert_positions,
    label_spans,
    token_positions,
    tokens_of,
)
from mi_ref.text.spans import Encoding

pytestmark = pytest.mark.usefixtures("as_users_call")


def encoding_of(pieces: list[str]) -> Encoding:
    """Return the encoding of consecutive pieces; '' is a special token."""
    chars: list[tuple[int, int] | None] = []
    octets: list[tuple[int, int] | None] = []
    text = ""
    for piece in pieces:
        start, first = len(text), len(text.encode())
        text += piece
        chars.append((start, len(text)) if piece else None)
        octets.append((first, len(text.encode())) if piece else None)
    return Encoding(text, tuple(range(len(pieces))), tuple(pieces), tuple(chars), tuple(octets))


CODE = encoding_of(["def", " ", "add", "(", "a", ",", " ", "b"])
TOWER = encoding_of(["The", " Eiffel", " Tower", " is", " located", " in", " Paris"])
UMLAUT = encoding_of(["", "Zü", "rich", " liegt"])


def test_the_place_of_a_character() -> None:
    """Section 12, case 11."""
    found = convert_positions(CODE, [4, 8, 100, 5, -1])
    assert [each.position for each in found] == [2, 4, None, 2, None]
    assert [each.exact for each in found] == [True, True, False, False, False]
    assert found[0] == Place(4, 2, "add", True)
    assert tokens_of(CODE, 3, 5) == (1, 2)


def test_labels_of_spans() -> None:
    """Section 12, case 11."""
    spans = [("subject", (0, 16)), ("relation", (17, 30))]
    assert label_spans(TOWER, spans) == (
        "subject", "subject", "subject_final", "relation", "relation", "relation_final", "other"
    )  # fmt: skip


def test_of_overlapping_spans_the_first_has_the_token() -> None:
    spans = [("all", (0, 10)), ("tail", (4, 16))]
    labels = label_spans(TOWER, spans)
    assert labels[:4] == ("all", "all_final", "tail_final", "other")


def test_bytes_are_not_characters() -> None:
    """candle-mi counts only bytes: after an umlaut its characters are off by one."""
    assert convert_positions(UMLAUT, [2, 3])[0].position == 2
    assert [p.position for p in convert_positions(UMLAUT, [2, 3], unit="bytes")] == [1, 2]
    assert label_spans(UMLAUT, [("city", (0, 6))])[1:] == ("city", "city_final", "other")
    assert label_spans(UMLAUT, [("city", (0, 3))], unit="bytes")[1:3] == ("city_final", "other")


def test_a_token_without_characters_is_other() -> None:
    with_empty = Encoding("ab", (0, 1, 2), ("a", "", "b"), ((0, 1), (1, 1), (1, 2)),
                          ((0, 1), (1, 1), (1, 2)))  # fmt: skip
    for unit in ("characters", "bytes"):
        labels = label_spans(with_empty, [("x", (0, 2))], unit=unit)
        assert labels == ("x", "other", "x_final")


def test_a_prompt_of_the_bundled_model(atlas: Model, tmp_path: Path) -> None:
    text = "The capital of France is"
    found = token_positions(atlas, text, {"subject": " France", "verb": (21, 24)})
    assert found.labels == ("other", "other", "other", "other", "subject_final", "verb_final")
    assert found.positions("subject") == (4,)
    assert found.positions("subject")[0] == atlas.get_token_position(" France", text)
    assert list(found.encoding.ids) == atlas.to_tokens(text)[0].tolist()
    lines = str(found).splitlines()
    assert lines[6].split() == ["4", "'", "France'", "1418", "14–21", "14–21", "subject_final"]
    assert lines[2].split() == ["0", "'<|bos|>'", "0", "other"]
    found.save(tmp_path / "positions.json")
    record: Any = json.loads((tmp_path / "positions.json").read_text())
    assert record["format"] == "mi_ref.token_positions/1"
    assert record["char_spans"][0] is None
    assert record["char_spans"][4] == [14, 21]
    assert record["labels"] == list(found.labels)
    for n, span in enumerate(record["char_spans"][1:], start=1):
        assert text[slice(*span)] == record["str_tokens"][n]
    with pytest.raises(NotImplementedError, match="has no picture"):
        found.plot(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"a": "Rome"}, r"'a': 'Rome' occurs 0 times in 'The capital.*give its span"),
        ({"a": "a"}, r"'a': 'a' occurs 3 times"),
        ({"a": ""}, r"occurs 0 times"),
        ({"a": (3, 3)}, r"span 3 to 3 is empty or outside the text of 24 characters"),
        ({"a": (20, 30)}, r"span 20 to 30 is empty or outside"),
    ],
)
def test_spans_that_are_not_there_are_refused(labels: Any, message: str, atlas: Model) -> None:
    with pytest.raises(TokenError, match=message):
        token_positions(atlas, "The capital of France is", labels)


def test_a_label_that_no_token_bears(atlas: Model) -> None:
    found = token_positions(atlas, "The capital", {"noun": "capital"})
    with pytest.raises(TokenError, match=r"no token is labelled 'verb'; there are noun_final, oth"):
        found.positions("verb")
    with pytest.raises(TokenError, match=r"span 0 to 99 is empty or outside the text of 11 bytes"):
        tokens_of(found.encoding, 0, 99, unit="bytes")
    with pytest.raises(ValueError, match=r"unit='tokens': expected 'characters' or 'bytes'"):
        convert_positions(found.encoding, [0], unit="tokens")  # type: ignore[arg-type]


def test_a_span_without_tokens_is_refused() -> None:
    gap = Encoding("a b", (0, 1), ("a", "b"), ((0, 1), (2, 3)), ((0, 1), (2, 3)))
    with pytest.raises(TokenError, match=r"no token stands in 'space', characters 1 to 2"):
        label_spans(gap, [("space", (1, 2))])
    assert convert_positions(gap, [1]) == (Place(1, None, None, False),)
