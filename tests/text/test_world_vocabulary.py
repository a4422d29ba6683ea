"""World vocabulary files: every fault reported, no code run, every spelling of a token read."""

from __future__ import annotations

from pathlib import Path

import pytest

from mi_ref.errors import TokenError
from mi_ref.text.tokenizer import Tokenizer
from mi_ref.text.world_vocabulary import read_vocabulary
from tests.fixtures.world_specs import FILE, TOKENS, written


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("5 'a' 2", "expected a token of 2 bytes, got 1"),
        ("5 'é' 1", "expected a token of 1 bytes, got 2"),
        ("0 'a' 1", "expected an id from 1 on: 0 ends a text"),
        ("5 '' 0", "expected a token of at least one byte"),
        ("1 'b' 1", "id 1 is already b'x'"),
        ("5 'x' 1", "the token is already id 1"),
        ("5 b'x' 1", "the token is already id 1"),
        ("", "expected an id, a token as"),
        ("5 'a'", "expected an id, a token as"),
        ("'a' 1", "expected an id, a token as"),
        ("-5 'a' 1", "expected an id, a token as"),
        ("5 a 1", "expected an id, a token as"),
        ("5 97 2", "expected an id, a token as"),
        ("5 ['a'] 1", "expected an id, a token as"),
        ("5 'a' 'b' 2", "expected an id, a token as"),
        ("5 f'a' 1", "expected an id, a token as"),
        ("5 'a\" 1", "expected an id, a token as"),
        ("5 'a' 1 ", "expected an id, a token as"),
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
    assert head == f"{path} is not a World vocabulary; fetch it again:"
    assert fault.startswith(f"  line 2, {line!r}: ")
    assert said in fault


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = f"open({str(trap)!r}, 'w')"
    path = tmp_path / FILE
    path.write_text(f"1 {code} 1\n2 __import__('os') 1\n3 'a'+'b' 2\n", encoding="utf-8")
    with pytest.raises(
        TokenError, match=r"line 2, \"2 __import__\('os'\) 1\": expected an id, a token as"
    ):
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
    with pytest.raises(TokenError, match=r"no token for the byte 0xC3 in 'aé'\. A complete"):
        lacking.encode("aé")


def test_two_vocabularies(tmp_path: Path) -> None:
    paths = [tmp_path / "rwkv_vocab_v1.txt", tmp_path / "rwkv_vocab_v2.txt"]
    tokenizer = Tokenizer.from_files(None, world=paths, source="tok")
    with pytest.raises(
        TokenError, match=r"expected one vocabulary, got .*v1\.txt, .*v2\.txt; remove"
    ):
        tokenizer.encode("a")
