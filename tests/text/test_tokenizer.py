"""Tokens as text and their positions: byte-level and metaspace, both directions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from mi_ref.errors import TokenError
from mi_ref.text.tokenizer import Tokenizer
from tests.fixtures.tokenizer_specs import (
    BOS,
    assert_spans_agree,
    byte_level_spec,
    metaspace_spec,
    template,
    written,
)


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    spec = byte_level_spec() | {"post_processor": template({BOS: 264})}
    return written(tmp_path_factory.mktemp("byte_level"), spec)


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return written(tmp_path_factory.mktemp("metaspace"), metaspace_spec())


def test_byte_level_tokens(byte_level: Tokenizer) -> None:
    encoding = byte_level.encode("x 🦙 Paris é<|end|>")
    assert encoding.tokens == (
        BOS, "x", " <0xF0 0x9F>", "<0xA6>", "<0x99>", " Paris", " ", "é", "<|end|>",
    )  # fmt: skip
    assert encoding.char_spans == (
        None, (0, 1), (1, 3), (2, 3), (2, 3), (3, 9), (9, 10), (10, 11), (11, 18),
    )  # fmt: skip
    assert encoding.byte_spans == (
        None, (0, 1), (1, 4), (4, 5), (5, 6), (6, 12), (12, 13), (13, 15), (15, 22),
    )  # fmt: skip
    assert byte_level.decode(encoding.ids) == BOS + encoding.text
    assert byte_level.decode(encoding.ids, skip_special_tokens=True) == "x 🦙 Paris é"
    assert byte_level.vocab_size == 266


def test_metaspace_tokens(metaspace: Tokenizer) -> None:
    encoding = metaspace.encode("Paris in Paris\n")
    assert encoding.tokens == ("<s>", " Paris", " ", "in", " Paris", "\n")
    assert encoding.char_spans == (None, (0, 5), (5, 6), (6, 8), (8, 14), (14, 15))
    assert metaspace.decode(encoding.ids, skip_special_tokens=True) == encoding.text
    assert metaspace.decode(encoding.ids) == "<s> Paris in Paris\n"


def test_dummy_space_has_no_place(metaspace: Tokenizer) -> None:
    encoding = metaspace.encode("🦙 é")
    assert encoding.tokens == (
        "<s>", " ", "<0xF0>", "<0x9F>", "<0xA6>", "<0x99>", " ", "é",
    )  # fmt: skip
    assert encoding.char_spans == (None, (0, 0), *[(0, 1)] * 4, (1, 2), (2, 3))
    assert encoding.byte_spans == (
        None, (0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 7),
    )  # fmt: skip
    assert metaspace.encode(" Paris").char_spans == (None, (0, 0), (0, 6))


def scheme_spec(scheme: str) -> dict[str, Any]:
    """The metaspace as a pre-tokenizer, as newer files have it."""
    spec = metaspace_spec() | {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": True,
        },
    }  # fmt: skip
    if scheme == "never":
        spec["decoder"]["decoders"] = spec["decoder"]["decoders"][:3]
    return spec


@pytest.mark.parametrize(
    ("scheme", "text", "tokens", "decoded"),
    [  # ids and texts of transformers 5.23 for the same files
        ("first", "Paris is", (" Paris", " ", "is"), "Paris is"),
        ("first", " Paris", (" Paris",), "Paris"),
        ("first", "is</s>Paris", (" ", "is", "</s>", "P", "ar", "is"), "is</s>Paris"),
        ("always", "Paris is", (" Paris", " ", "is"), "Paris is"),
        ("always", " Paris", (" Paris",), "Paris"),
        ("always", "is</s>Paris", (" ", "is", "</s>", " Paris"), "is</s> Paris"),
        ("never", "Paris is", ("P", "ar", "is", " ", "is"), "Paris is"),
        ("never", " Paris", (" Paris",), " Paris"),
        ("never", "is</s>Paris", ("is", "</s>", "P", "ar", "is"), "is</s>Paris"),
    ],
)
def test_space_before_a_text(
    tmp_path: Path, scheme: str, text: str, tokens: tuple[str, ...], decoded: str
) -> None:
    tokenizer = written(tmp_path, scheme_spec(scheme))
    encoding = tokenizer.encode(text, prepend_bos=False)
    assert encoding.tokens == tokens
    assert tokenizer.decode(encoding.ids) == decoded
    assert_spans_agree(encoding, tiled=True)


def test_part_of_a_character(metaspace: Tokenizer, byte_level: Tokenizer) -> None:
    llama = metaspace.encode("🦙", prepend_bos=False).ids[1:]
    assert metaspace.decode(llama) == "🦙"
    assert metaspace.decode(llama[:3]) == "\ufffd" * 3
    assert [metaspace.token_string(id) for id in llama[:2]] == ["<0xF0>", "<0x9F>"]
    e_acute = byte_level.encode("🦙é", prepend_bos=False).ids
    assert byte_level.decode(e_acute[1:]) == "\ufffd\ufffd\ufffdé"
    assert byte_level.decode(e_acute[:1]) == "\ufffd"


def test_added_tokens_inside_a_text_are_one_token_each(tmp_path: Path) -> None:
    spec = byte_level_spec()
    chatml = [
        spec["added_tokens"][0] | {"id": 266 + n, "content": content, "special": special}
        for n, (content, special) in enumerate([("<|im_start|>", True), ("<tool_call>", False)])
    ]
    tokenizer = written(tmp_path, spec | {"added_tokens": [*spec["added_tokens"], *chatml]})
    encoding = tokenizer.encode("é<|im_start|>ar <tool_call> Paris")
    assert encoding.tokens == ("é", "<|im_start|>", "ar", " ", "<tool_call>", " Paris")
    assert encoding.ids[1:3] == (266, 256)
    assert encoding.char_spans[1] == (1, 13)
    assert tokenizer.single_id("<|im_start|>") == 266
    assert tokenizer.decode(encoding.ids) == encoding.text
    # <tool_call> is added but not special, so it stays.
    assert tokenizer.decode(encoding.ids, skip_special_tokens=True) == "éar <tool_call> Paris"


def test_from_place_to_token(byte_level: Tokenizer) -> None:
    encoding = byte_level.encode("x 🦙 Paris")
    assert len(encoding) == 6
    assert [encoding.char_to_token(c) for c in (0, 1, 2, 3, 8)] == [1, 2, 2, 5, 5]
    assert [encoding.byte_to_token(b) for b in (0, 3, 4, 5, 6)] == [1, 2, 3, 4, 5]
    assert encoding.span_to_tokens(2, 4) == (2, 3, 4, 5)
    assert encoding.span_to_tokens(0, 9) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(("start", "end"), [(-1, 4), (3, 3), (5, 4), (0, 7)])
def test_span_outside_the_text(byte_level: Tokenizer, start: int, end: int) -> None:
    encoding = byte_level.encode(" Paris")
    with pytest.raises(
        TokenError,
        match=f"span {start} to {end}: expected a non-empty span inside the text of 6",
    ):
        encoding.span_to_tokens(start, end)
    with pytest.raises(
        TokenError, match="span -1 to 0: expected a non-empty span inside the text of 6 b"
    ):
        encoding.byte_to_token(-1)


text_with_traps = st.text() | st.lists(
    st.sampled_from([" ", "\n", " Paris", "is", "é", "e\u0301", "🦙", "👩‍🔬", "<|end|>", "▁", "Ġ"])
).map("".join)


@settings(deadline=None, max_examples=150)
@given(text=text_with_traps)
def test_byte_level_round_trip(byte_level: Tokenizer, text: str) -> None:
    encoding = byte_level.encode(text, prepend_bos=False)
    assert byte_level.decode(encoding.ids) == text
    assert_spans_agree(encoding, tiled=True)


@settings(deadline=None, max_examples=150)
@given(text=text_with_traps.filter(lambda text: "▁" not in text))
def test_metaspace_round_trip(metaspace: Tokenizer, text: str) -> None:
    encoding = metaspace.encode(text, prepend_bos=False)
    assert metaspace.decode(encoding.ids) == text
    assert_spans_agree(encoding, tiled=True)


def test_single_id_byte_level(byte_level: Tokenizer) -> None:
    assert byte_level.single_id(" Paris") == 260
    assert byte_level.single_id(BOS) == 264
    with pytest.raises(TokenError) as refused:
        byte_level.single_id("Paris")
    assert str(refused.value) == (
        "'Paris' is not one token of tok: its pieces are ['P' (47), 'ar' (256), 'is' (257)]; "
        "' Paris' is one token. Choose a text that is one token, or get the ids of all pieces "
        "from encode"
    )


def test_single_id_metaspace_spaces_count(metaspace: Tokenizer) -> None:
    assert metaspace.single_id(" Paris") == 271
    assert metaspace.single_id("is") == 268
    assert metaspace.single_id("\n") == 13
    assert metaspace.single_id("</s>") == 2
    with pytest.raises(TokenError, match=r"'is' \(268\)\]; ' Paris' is one token"):
        metaspace.single_id("Paris")
    with pytest.raises(TokenError, match=r"are \[' ' \(259\), 'is' \(268\)\]; 'is' is one"):
        metaspace.single_id(" is")
    with pytest.raises(
        TokenError, match=r"'' is not one token of tok: its pieces are \[\]\. Choose"
    ):
        metaspace.single_id("")


def test_single_id_reads_back(metaspace: Tokenizer, byte_level: Tokenizer) -> None:
    for tokenizer in (metaspace, byte_level):
        for id in range(tokenizer.vocab_size):
            shown = tokenizer.token_string(id)
            try:
                found = tokenizer.single_id(shown)
            except TokenError:
                assert "<0x" in shown or shown == "<unk>" or shown == " <0xF0 0x9F>"
            else:
                assert tokenizer.token_string(found) == shown
