"""RWKV's World tokenizer: longest match, places, checkpoints that have it, the real file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

import mi_ref
from mi_ref.checkpoints.files import FileListing, read_checkpoint
from mi_ref.checkpoints.inspect import inspect_checkpoint
from mi_ref.cli import main
from mi_ref.errors import TokenError
from mi_ref.text.tokenizer import Tokenizer
from tests.fixtures.tokenizer_specs import assert_spans_agree
from tests.fixtures.world_specs import END, FILE, GOOSE, IDS, TOKENS, WORDS, tokenizer, written


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tokenizer(tmp_path_factory.mktemp("world"))


def naive(raw: bytes) -> list[int]:
    found = []
    while raw:
        longest = max((token for token in IDS if raw.startswith(token)), key=len)
        found.append(IDS[longest])
        raw = raw[len(longest) :]
    return found


texts = st.text() | st.lists(st.sampled_from([*WORDS, "abcd", "e", " ", "\n", END])).map("".join)


@settings(deadline=None, max_examples=200)
@given(text=texts)
def test_the_longest_token_at_each_place(plain: Tokenizer, text: str) -> None:
    encoding = plain.encode(text)
    assert list(encoding.ids) == naive(text.encode())
    assert plain.decode(encoding.ids) == text
    assert_spans_agree(encoding, tiled=True)
    raw = text.encode()
    for id, span in zip(encoding.ids, encoding.byte_spans, strict=True):
        assert span is not None
        assert raw[slice(*span)] == TOKENS[id]


def test_tokens_and_places(plain: Tokenizer) -> None:
    encoding = plain.encode("abcd 🦙é Paris")
    assert encoding.tokens == (
        "ab", "c", "d", " <0xF0 0x9F>", "<0xA6>", "<0x99>", "é", " Paris",
    )  # fmt: skip
    assert encoding.char_spans == (
        (0, 2), (2, 3), (3, 4), (4, 6), (5, 6), (5, 6), (6, 7), (7, 13),
    )  # fmt: skip
    assert encoding.byte_spans == (
        (0, 2), (2, 3), (3, 4), (4, 7), (7, 8), (8, 9), (9, 11), (11, 17),
    )  # fmt: skip
    assert plain.encode("").ids == ()
    assert plain.encode("🦙").ids == (IDS["🦙".encode()],)


def test_every_token_reads_back(plain: Tokenizer) -> None:
    for id in range(1, len(TOKENS) + 1):
        shown = plain.token_string(id)
        if "<0x" in shown:
            assert shown.encode() not in TOKENS.values()
        else:
            assert plain.single_id(shown) == id
    with pytest.raises(TokenError, match=r"'Paris' is not one token.*; ' Paris' is one token"):
        plain.single_id("Paris")


def test_part_of_a_character(plain: Tokenizer) -> None:
    assert plain.decode([IDS[b" \xf0\x9f"], IDS[b"\xa6"], IDS[b"\x99"]]) == " 🦙"
    assert plain.decode([IDS[b"a"], IDS[b"\xa6"], IDS[b"b"]]) == "a\ufffdb"
    assert plain.token_string(IDS[b"\xa6"]) == "<0xA6>"


def test_without_a_word_from_the_checkpoint(plain: Tokenizer) -> None:
    assert (plain.bos_id, plain.eos_id, plain.adds_bos) == (None, 0, False)
    assert (plain.vocab_size, plain.kind) == (len(TOKENS) + 1, "World")
    assert plain.token_string(0) == "<|endoftext|>"
    assert plain.decode([IDS[b"a"], 0]) == "a<|endoftext|>"
    assert plain.decode([IDS[b"a"], 0, IDS[b"\n\n"]], skip_special_tokens=True) == "a\n\n"
    # As in the package rwkv, where the words are text.
    assert plain.encode("<|endoftext|>").tokens[:3] == ("<|", "endo", "f")
    with pytest.raises(TokenError, match="prepend_bos=True, but tok has no BOS token"):
        plain.encode("a", prepend_bos=True)


def test_ids_beyond_the_file(plain: Tokenizer) -> None:
    beyond = len(TOKENS) + 1
    said = f"token id {beyond} is not among the {beyond} of tok. Ids just above these are padding"
    with pytest.raises(TokenError, match=said):
        plain.decode([1, beyond])
    with pytest.raises(TokenError, match=said):
        plain.token_string(beyond)
    with pytest.raises(TokenError, match="token id -1 is not among"):
        plain.decode([-1])


# Checkpoints


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A small model next to a vocabulary with more ids than the model has."""
    for file in ("config.json", "model.safetensors"):
        shutil.copy(repository / "golden/data/llama2" / file, tmp_path)
    written(tmp_path)
    return tmp_path


def test_a_checkpoint_with_a_vocabulary(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = mi_ref.from_pretrained(folder)
    assert model.to_tokens("\n\t").tolist() == [[11, 10]]
    assert model.to_str_tokens([11, 10]) == ["\n", "\t"]
    (folder / "tokenizer_config.json").write_text(json.dumps(GOOSE), encoding="utf-8")
    facts = inspect_checkpoint(folder).tokenizer
    assert (facts.kind, facts.size, facts.bos) == ("World", len(TOKENS) + 1, END)
    assert (facts.adds_bos, facts.problem) == (False, None)
    assert main(["tokens", "--model", str(folder), "é Paris"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert any(str(IDS[b" Paris"]) in row and "' Paris'" in row for row in rows)


def test_a_damaged_vocabulary_is_told(folder: Path) -> None:
    (folder / FILE).write_text("1 'a' 2\n")
    facts = inspect_checkpoint(folder).tokenizer
    assert facts.kind is None
    assert "expected a token of 2 bytes, got 1" in str(facts.problem)


def test_which_files_are_fetched(tmp_path: Path) -> None:
    fetched = []

    def fetch(file: str) -> Path:
        fetched.append(file)
        return tmp_path / file

    other = {"vocab.txt", "sub/rwkv_vocab_v2.txt", "rwkv_vocab_v1.json"}
    files = {"config.json", "model.safetensors", FILE, *other}
    found = read_checkpoint(FileListing("org/rwkv", "there", frozenset(files), fetch))
    assert found.world == (tmp_path / FILE,)
    assert fetched == ["config.json", FILE, "model.safetensors"]
    fetched.clear()
    both = read_checkpoint(
        FileListing("org/rwkv", "there", frozenset({*files, "tokenizer.json"}), fetch)
    )
    assert both.world == ()
    assert fetched == ["config.json", "tokenizer.json", "model.safetensors"]


# The real file


@pytest.fixture(scope="module")
def real(shared: Path) -> Tokenizer:
    path = shared / "tokenizers/rwkv-world/rwkv_vocab_v20230424.txt"
    if not path.is_file():
        pytest.skip("no World vocabulary in ../shared")
    return Tokenizer.from_files(None, world=[path], source="world")


def test_real_ids(real: Tokenizer) -> None:
    # Of the package rwkv 0.8.32.
    assert real.encode("def fibonacci(n):\n    ").ids == (
        7334, 21676, 41943, 41, 111, 501, 28352,
    )  # fmt: skip
    assert real.single_id("\n\n") == 261
    assert real.vocab_size == 65_529 + 1
    with pytest.raises(TokenError, match="token id 65530 is not among the 65530 of world"):
        real.decode([65530])


def test_hard_strings(real: Tokenizer, shared: Path) -> None:
    texts = []
    for file in sorted((shared / "tokenizers/cases").glob("*.inp")):
        texts += file.read_bytes().decode().split("\n__ggml_vocab_test__\n")
    assert len(texts) >= 47
    for text in texts:
        encoding = real.encode(text)
        assert real.decode(encoding.ids) == text
        assert_spans_agree(encoding, tiled=True)
