"""Real tokenizers give the ids of their reference implementations on difficult strings."""

from __future__ import annotations

import unicodedata
from functools import cache
from pathlib import Path

import pytest

from mi_ref.text.tokenizer import Tokenizer
from tests.fixtures.tokenizer_specs import assert_spans_agree

SHARED = Path(__file__).resolve().parents[3] / "shared"
HARD_STRINGS = [("gpt2", "gpt-2"), ("gpt-neox-20b", "mpt"), ("qwen2", "qwen2")]


def shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real tokenizers are not at ../shared/{'/'.join(parts)}")
    return path


@cache
def real(folder: str) -> Tokenizer:
    return Tokenizer.from_files(shared("tokenizers", folder, "tokenizer.json"), source=folder)


def stories() -> Tokenizer:
    folder = shared("models", "stories260K")
    return Tokenizer.from_files(
        folder / "tokenizer.json", folder / "tokenizer_config.json", source="stories260K"
    )


@pytest.mark.parametrize(("folder", "cases"), HARD_STRINGS)
def test_hard_strings(folder: str, cases: str) -> None:
    tokenizer = real(folder)
    files = shared("tokenizers", "cases")
    texts = (files / f"ggml-vocab-{cases}.gguf.inp").read_bytes().decode()
    ids = (files / f"ggml-vocab-{cases}.gguf.out").read_text(encoding="utf-8").split("\n")
    pairs = list(zip(texts.split("\n__ggml_vocab_test__\n"), ids, strict=False))
    assert len(pairs) == 47
    for text, expected in pairs:
        encoding = tokenizer.encode(text)
        assert encoding.ids == tuple(map(int, expected.split())), text
        same = unicodedata.is_normalized("NFC", text) or folder == "gpt2"
        assert tokenizer.decode(encoding.ids) == (
            text if same else unicodedata.normalize("NFC", text)
        )
        assert_spans_agree(encoding, tiled=same)


def test_gpt2_tokens_and_spans() -> None:
    encoding = real("gpt2").encode(" 🦙 the café")
    assert encoding.tokens == (" <0xF0 0x9F>", "<0xA6>", "<0x99>", " the", " café")
    assert encoding.char_spans == ((0, 2), (1, 2), (1, 2), (2, 6), (6, 11))
    assert encoding.byte_spans == ((0, 3), (3, 4), (4, 5), (5, 9), (9, 15))


def test_tokenizer_that_composes_characters_covers_their_parts() -> None:
    encoding = real("qwen2").encode("C" + "ư\u0309" + "a e\u0301")
    assert encoding.tokens == ("C", "\u1eeda", " \xe9")
    assert encoding.char_spans == ((0, 1), (1, 4), (4, 7))


def test_leading_spaces_are_not_trimmed_off_the_spans() -> None:
    assert real("gpt-neox-20b").encode(" a  b").char_spans == ((0, 2), (2, 4), (4, 5))


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # AutoTokenizer(text).input_ids of transformers 5.23
        ("Once upon", (1, 403, 407)),
        (" Once", (1, 410, 403)),
        ("  Once", (1, 410, 410, 403)),
        ("a</s> b", (1, 261, 2, 410, 268)),
        ("a</s>b", (1, 261, 2, 268)),
        ("x\n\ty é🦙", (1, 410, 444, 13, 12, 422, 410, 485, 243, 162, 169, 156)),
        ("", (1,)),
        ("<s>Hi", (1, 1, 320, 417)),
    ],
)
def test_stories_ids_match_transformers(text: str, ids: tuple[int, ...]) -> None:
    tokenizer = stories()
    encoding = tokenizer.encode(text)
    assert encoding.ids == ids
    assert_spans_agree(encoding, tiled=True)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 512)
    assert tokenizer.adds_bos
