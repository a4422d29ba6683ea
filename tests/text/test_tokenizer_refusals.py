"""Ids, texts and files that a tokenizer cannot take, each with a clear error."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mi_ref.errors import TokenError
from mi_ref.text.tokenizer import Tokenizer
from tests.fixtures.tokenizer_specs import byte_level_spec, written


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return written(tmp_path_factory.mktemp("byte_level"), byte_level_spec())


def test_unknown_ids(byte_level: Tokenizer) -> None:
    with pytest.raises(TokenError, match="token id 266, -1 is not among the 266 of tok"):
        byte_level.decode([1, 266, -1])
    with pytest.raises(TokenError, match="token id 99999999999 is not among the 266 of tok"):
        byte_level.token_string(99999999999)


def test_ids_may_be_an_array_but_flat(byte_level: Tokenizer) -> None:
    assert byte_level.decode(np.asarray([260, 257])) == " Parisis"
    assert byte_level.token_string(np.int64(260)) == " Paris"
    with pytest.raises(TokenError, match="expected a flat sequence of integers as token ids"):
        byte_level.decode(np.asarray([[260, 257]]))


def test_text_with_half_a_character(byte_level: Tokenizer) -> None:
    with pytest.raises(TokenError, match=r"character 1 is the surrogate '\\ud83e', half of"):
        byte_level.encode("a\ud83e")


def test_sentencepiece_alone_is_refused_with_the_way_out() -> None:
    model = Path("mistral-v1", "tokenizer.model")
    tokenizer = Tokenizer.from_files(None, sentencepiece=model, source="mistral-v1")
    with pytest.raises(
        TokenError, match=r"mistral-v1 has no tokenizer.json, only .*tokenizer.model"
    ):
        tokenizer.encode("Paris")
    with pytest.raises(TokenError, match=r"token ids instead.*save_pretrained\(folder\)"):
        _ = tokenizer.bos_id


def test_no_files_at_all() -> None:
    tokenizer = Tokenizer.from_files(None, source="tiny")
    with pytest.raises(TokenError, match=r"tiny has no tokenizer.json\. Pass token ids instead"):
        tokenizer.decode([1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "version https://git-lfs.github.com/spec/v1",
            "is not a tokenizer: expected value at line 1",
        ),
        ("[]", "is not a tokenizer: invalid type: sequence"),
        ("{}", "is not a tokenizer: "),
    ],
)
def test_corrupt_files(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenError, match=f"tokenizer.json {said}.*fetch it again"):
        Tokenizer.from_files(path, source="tok").encode("a")


def test_missing_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_files(tmp_path / "tokenizer.json", source="tok")
    with pytest.raises(TokenError, match=r"tokenizer.json is not a tokenizer: No such file"):
        tokenizer.encode("a")


def test_import_is_cheap_and_text_must_be_str(tmp_path: Path) -> None:
    written(tmp_path, byte_level_spec())
    script = """
import pathlib, sys
from mi_ref.text.tokenizer import Tokenizer
tokenizer = Tokenizer.from_files(pathlib.Path(sys.argv[1]), source="tok")
assert "tokenizers" not in sys.modules
tokenizer.encode(b"Paris")
"""
    # As outside the tests, where the method itself makes the first check.
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "tokenizer.json")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr.strip().endswith("TokenError: expected text as a str, got bytes b'Paris'")
