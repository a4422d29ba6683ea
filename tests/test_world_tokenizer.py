"""RWKV's World tokenizer: longest match, places, special tokens, faulty files, the real file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from tokenizer_specs import assert_spans_agree

import mi_ref
from mi_ref.checkpoint import Source, read_checkpoint
from mi_ref.cli import main
from mi_ref.errors import TokenError
from mi_ref.inspection import inspect_checkpoint
from mi_ref.tokenizer import Tokenizer
from mi_ref.world_vocabulary import read_vocabulary

FILE = "rwkv_vocab_v1.txt"
# "ab" and "abcde" without what is between: a match that goes too far has to come back.
WORDS = [" Paris", "is", "é", "🦙", "\n\n", "  ", "ab", "abcde", "it's \"", "<|", "\x80", "endo"]
PIECES = [*(bytes([byte]) for byte in range(256)), *map(str.encode, WORDS), b" \xf0\x9f"]
TOKENS = dict(enumerate(PIECES, 1))
IDS = {token: id for id, token in TOKENS.items()}
END = "<|rwkv_tokenizer_end_of_text|>"
# What converted checkpoints on the Hub have.
GOOSE = {
    "add_bos_token": False,
    "added_tokens_decoder": {"0": {"content": END, "lstrip": False, "special": True}},
    "bos_token": END, "eos_token": "\n\n", "pad_token": END, "unk_token": END,
}  # fmt: skip


def written(folder: Path, tokens: Mapping[int, bytes] = TOKENS) -> Path:
    """Write a vocabulary as the real one is: text where the bytes are some, else bytes."""
    lines = []
    for id, token in tokens.items():
        try:
            literal = repr(token.decode())
        except UnicodeDecodeError:
            literal = repr(token)
        lines.append(f"{id} {literal} {len(token)}\n")
    path = folder / FILE
    path.write_bytes("".join(lines).encode())
    return path


def tokenizer(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
) -> Tokenizer:
    path = None
    if config is not None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_files(
        None, path, world=[written(folder)], source="tok", bos_id=bos_id, eos_id=eos_id
    )


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
    with pytest.raises(TokenError, match="prepend_bos=True, but tok names no BOS token"):
        plain.encode("a", prepend_bos=True)


def test_ids_beyond_the_file(plain: Tokenizer) -> None:
    beyond = len(TOKENS) + 1
    said = f"token id {beyond} is not among the {beyond} of tok. Ids just above them are padding"
    with pytest.raises(TokenError, match=said):
        plain.decode([1, beyond])
    with pytest.raises(TokenError, match=said):
        plain.token_string(beyond)
    with pytest.raises(TokenError, match="token id -1 is not among"):
        plain.decode([-1])


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
        ({"x": {"content": "<s>"}}, "has 'x': {'content': '<s>'}; needed is an id with"),
        ({"0": {"content": ""}}, "has '0': {'content': ''}; needed"),
        ({"0": "<s>"}, "has '0': '<s>'; needed"),
        ([["0", "<s>"]], r"has '': \[\['0', '<s>'\]\]; needed"),
        ({"0": {"content": "<s>", "rstrip": True}}, "without lstrip, rstrip, single_word"),
    ],
)
def test_faulty_added_tokens(tmp_path: Path, decoder: object, said: str) -> None:
    with pytest.raises(TokenError, match=said):
        tokenizer(tmp_path, {"added_tokens_decoder": decoder}).encode("a")


# Files


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("5 'a' 2", "the token has 1 bytes"),
        ("5 'é' 1", "the token has 2 bytes"),
        ("0 'a' 1", "ids start at 1: 0 ends a text"),
        ("5 '' 0", "a token needs a byte"),
        ("1 'b' 1", "id 1 is b'x' already"),
        ("5 'x' 1", "the token is id 1 already"),
        ("5 b'x' 1", "the token is id 1 already"),
        ("", "needed is an id, a token as"),
        ("5 'a'", "needed is"),
        ("'a' 1", "needed is"),
        ("-5 'a' 1", "needed is"),
        ("5 a 1", "needed is"),
        ("5 97 2", "needed is"),
        ("5 ['a'] 1", "needed is"),
        ("5 'a' 'b' 2", "needed is"),
        ("5 f'a' 1", "needed is"),
        ("5 'a\" 1", "needed is"),
        ("5 'a' 1 ", "needed is"),
        ("5 b'é' 2", "bytes can only contain ASCII"),
        (r"5 '\x8' 1", "truncated"),
        (r"5 '\d' 2", "invalid escape sequence"),
        (r"5 '\ud83e' 3", "surrogates not allowed"),
    ],
)
def test_faulty_lines(tmp_path: Path, line: str, said: str) -> None:
    path = tmp_path / FILE
    path.write_text(f"1 'x' 1\n{line}\n2 'y' 1\n", encoding="utf-8")
    with pytest.raises(TokenError) as refused:
        read_vocabulary(path)
    head, fault = str(refused.value).split("\n")
    assert head == f"{path} is no World vocabulary; fetch it again:"
    assert fault.startswith(f"  line 2, {line!r}: ")
    assert said in fault


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = f"open({str(trap)!r}, 'w')"
    path = tmp_path / FILE
    path.write_text(f"1 {code} 1\n2 __import__('os') 1\n3 'a'+'b' 2\n", encoding="utf-8")
    with pytest.raises(TokenError, match=r"line 2, \"2 __import__\('os'\) 1\": needed is"):
        read_vocabulary(path)
    assert not trap.exists()


def test_the_first_dozen_faults_at_once(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text("1 'x' 1\n" + "oh\n" * 15, encoding="utf-8")
    with pytest.raises(TokenError) as refused:
        read_vocabulary(path)
    lines = str(refused.value).split("\n")[1:]
    assert [line.split(",")[0] for line in lines[:-1]] == [f"  line {n}" for n in range(2, 14)]
    assert lines[-1] == "  and 3 more"


@pytest.mark.parametrize("content", [b"", b"1 'x' 1\n\xff", None])
def test_files_that_are_no_text(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / FILE
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TokenError, match=r"rwkv_vocab_v1\.txt .*fetch it again"):
        read_vocabulary(path)


def test_line_ends(tmp_path: Path) -> None:
    path = written(tmp_path)
    whole = path.read_bytes()
    assert read_vocabulary(path) == TOKENS
    for other in (whole.replace(b"\n", b"\r\n"), whole.removesuffix(b"\n")):
        path.write_bytes(other)
        assert read_vocabulary(path) == TOKENS


def test_quotes_and_escapes(tmp_path: Path) -> None:
    path = tmp_path / FILE
    lines = [
        r"1 '\x80' 2",
        r"2 b'\x80' 1",
        '3 "it\'s" 4',
        '4 b"\'" 1',
        r"9 '\'\"\\' 3",
        "7 '\u2028' 3",
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_vocabulary(path) == {
        1: b"\xc2\x80", 2: b"\x80", 3: b"it's", 4: b"'", 9: b"'\"\\", 7: b"\xe2\x80\xa8",
    }  # fmt: skip


def test_a_vocabulary_without_every_byte(tmp_path: Path) -> None:
    path = written(tmp_path, {1: b"a", 2: b"\xc3\xa9t"})
    lacking = Tokenizer.from_files(None, world=[path], source="tok")
    assert lacking.encode("aét").ids == (1, 2)
    with pytest.raises(TokenError, match=r"no token for the byte 0xC3, met in 'aé'\. The whole"):
        lacking.encode("aé")


def test_two_vocabularies(tmp_path: Path) -> None:
    paths = [tmp_path / "rwkv_vocab_v1.txt", tmp_path / "rwkv_vocab_v2.txt"]
    tokenizer = Tokenizer.from_files(None, world=paths, source="tok")
    with pytest.raises(TokenError, match=r"only one of .*v1\.txt, .*v2\.txt can be the model's"):
        tokenizer.encode("a")


# Checkpoints


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A small model with the vocabulary beside it, whose ids go beyond the model's."""
    for file in ("config.json", "model.safetensors"):
        shutil.copy(repository / "golden/llama2" / file, tmp_path)
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
    assert "the token has 1 bytes" in str(facts.problem)


def test_which_files_are_fetched(tmp_path: Path) -> None:
    fetched = []

    def fetch(file: str) -> Path:
        fetched.append(file)
        return tmp_path / file

    other = {"vocab.txt", "sub/rwkv_vocab_v2.txt", "rwkv_vocab_v1.json"}
    files = {"config.json", "model.safetensors", FILE, *other}
    found = read_checkpoint(Source("org/rwkv", "there", frozenset(files), fetch))
    assert found.world == (tmp_path / FILE,)
    assert fetched == ["config.json", FILE, "model.safetensors"]
    fetched.clear()
    both = read_checkpoint(
        Source("org/rwkv", "there", frozenset({*files, "tokenizer.json"}), fetch)
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
