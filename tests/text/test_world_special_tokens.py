"""Special tokens of a World vocabulary: where they come from, what they cut, chats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mi_ref.errors import TokenError
from mi_ref.text.tokenizer import Tokenizer
from tests.fixtures.tokenizer_specs import assert_spans_agree
from tests.fixtures.world_specs import END, GOOSE, IDS, TOKENS, tokenizer, written


@pytest.mark.parametrize(
    ("config", "ids", "bos", "eos"),
    [
        (None, {"bos_id": 0, "eos_id": 0}, 0, 0),
        (None, {"bos_id": 97, "eos_id": 98}, 97, 98),
        (None, {"bos_id": 65530, "eos_id": 65531}, None, 0),
        ({"bos_token": None, "eos_token": None}, {"bos_id": 97, "eos_id": 98}, None, None),
        ({"bos_token": "<s>"}, {"eos_id": 98}, 0, 98),
        ({"bos_token": "<s>", "eos_token": "</s>"}, {}, 0, 0),
        ({"bos_token": "ab", "eos_token": "\n\n"}, {}, IDS[b"ab"], IDS[b"\n\n"]),
        (GOOSE, {"bos_id": 1, "eos_id": 2}, 0, IDS[b"\n\n"]),
        ({"added_tokens_decoder": {"400": {"content": "<s>"}}, "bos_token": "<s>"}, {}, 400, 0),
    ],
)
def test_bos_and_eos(
    tmp_path: Path,
    config: dict[str, Any] | None,
    ids: dict[str, int],
    bos: int | None,
    eos: int | None,
) -> None:
    found = tokenizer(tmp_path, config, **ids)
    assert (found.bos_id, found.eos_id, found.adds_bos) == (bos, eos, False)
    assert found.encode("ab").ids == (IDS[b"ab"],)


def test_special_tokens_that_the_configuration_names_cut_a_text(tmp_path: Path) -> None:
    goose = tokenizer(tmp_path, GOOSE)
    encoding = goose.encode(f" é{END}\n\né")
    assert encoding.tokens == (" ", "é", END, "\n\n", "é")
    assert encoding.ids[2:4] == (0, IDS[b"\n\n"])
    assert encoding.char_spans == ((0, 1), (1, 2), (2, 32), (32, 34), (34, 35))
    assert_spans_agree(encoding, tiled=True)
    assert goose.decode(encoding.ids) == encoding.text
    assert goose.decode(encoding.ids, skip_special_tokens=True) == " é\n\né"
    assert goose.single_id(END) == goose.bos_id == 0
    assert goose.encode("a", prepend_bos=True).ids == (0, IDS[b"a"])


@pytest.mark.parametrize(
    "config",
    [
        {"eos_token": "<|endoftext|>"},
        {"additional_special_tokens": ["<|endoftext|>"]},
        {"added_tokens_decoder": {"0": {"content": "<|endoftext|>", "special": True}}},
    ],
)
def test_end_of_text_is_read_where_it_is_named(tmp_path: Path, config: dict[str, Any]) -> None:
    named = tokenizer(tmp_path, config)
    assert named.encode("a<|endoftext|>").ids == (IDS[b"a"], 0)
    assert named.eos_id == 0


def test_tokens_with_ids_beside_the_file(tmp_path: Path) -> None:
    listed = {"0": "<s>", "400": "\n\n", "401": "<s>x", "402": "<t>", "403": "<u>"}
    decoder = {id: {"content": text, "special": id == "403"} for id, text in listed.items()}
    named = {"eos_token": "\n\n", "additional_special_tokens": ["<t>"]}
    beside = tokenizer(tmp_path, {"added_tokens_decoder": decoder, **named})
    assert beside.encode("<s>x\n\n<s>").ids == (401, 400, 0)  # the longest where several begin
    assert beside.eos_id == 400
    assert beside.decode([401, 400, 402, 403, 0], skip_special_tokens=True) == "<s>x"
    assert beside.vocab_size == len(TOKENS) + 5


def test_add_bos_token(tmp_path: Path) -> None:
    adds = tokenizer(tmp_path, GOOSE | {"add_bos_token": True})
    assert adds.adds_bos
    assert adds.encode("a").ids == (0, IDS[b"a"])
    assert adds.encode("a", prepend_bos=False).ids == (IDS[b"a"],)
    # The class puts its own default first where none is named.
    unnamed = tokenizer(tmp_path, {"add_bos_token": True})
    assert (unnamed.encode("a").ids, unnamed.bos_id) == ((0, IDS[b"a"]), 0)


def test_chat(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    chat = "{{ bos_token }}{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}"
    text = tokenizer(tmp_path, GOOSE | {"chat_template": chat}).render_chat(
        [{"role": "user", "content": "Hi"}]
    )
    assert text == f"{END}Hi\n\n"
    by_id = tokenizer(tmp_path, {"chat_template": chat}, bos_id=IDS[b"ab"], eos_id=IDS[b"is"])
    assert by_id.render_chat([{"role": "user", "content": "Hi"}]) == "abHiis"


def test_a_template_gets_no_text_that_reads_back_as_another_token(tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    path = written(tmp_path, {1: b"a", 2: b"<|endoftext|>"})
    files = {"default": tmp_path / "chat_template.jinja"}
    files["default"].write_text("{{ eos_token is defined }}", encoding="utf-8")
    twice = Tokenizer.from_files(None, world=[path], source="tok", chat_templates=files)
    assert (twice.eos_id, twice.single_id("<|endoftext|>")) == (0, 2)
    assert twice.render_chat([{"role": "user", "content": "Hi"}]) == "False"


@pytest.mark.parametrize(
    ("decoder", "said"),
    [
        ({"x": {"content": "<s>"}}, "expected an id with .*; got 'x': {'content': '<s>'}$"),
        ({"0": {"content": ""}}, "expected .*; got '0': {'content': ''}$"),
        ({"0": "<s>"}, "expected .*; got '0': '<s>'$"),
        ([["0", "<s>"]], r"expected .*; got '': \[\['0', '<s>'\]\]$"),
        ({"0": {"content": "<s>", "rstrip": True}}, "without lstrip, rstrip, single_word"),
    ],
)
def test_faulty_added_tokens(tmp_path: Path, decoder: object, said: str) -> None:
    with pytest.raises(TokenError, match=said):
        tokenizer(tmp_path, {"added_tokens_decoder": decoder}).encode("a")
