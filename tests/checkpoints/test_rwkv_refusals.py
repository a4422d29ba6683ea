"""RWKV pickles in place of a checkpoint, and conversions that stop before they read one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import mi_ref
from mi_ref.checkpoints.files import FileListing, read_checkpoint
from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.checkpoints.rwkv_pth import convert_rwkv
from mi_ref.cli import main
from mi_ref.errors import ArgumentError, HubError, WeightError


@pytest.mark.parametrize(
    ("out", "vocab", "error", "said"),
    [
        ("full", None, ArgumentError, "'full' is not empty: name a new folder"),
        ("file", None, ArgumentError, "'file' is a file"),
        ("none/out", None, ArgumentError, "there is no folder 'none'"),
        ("out", "file", ArgumentError, "expected a file named rwkv_vocab_*.txt"),
        ("out", "rwkv_vocab_v1.txt", ArgumentError, "no vocabulary file 'rwkv_vocab_v1.txt'"),
    ],
)
def test_places_are_checked_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    out: str, vocab: str | None, error: type[Exception], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    Path("full").mkdir()
    Path("full", "notes").touch()
    Path("file").touch()
    with pytest.raises(error, match=re.escape(said)):
        convert_rwkv("absent.pth", out, vocab=vocab)


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        (None, r"requires torch, which is not installed: pip install 'mi_ref\[convert\]'"),
        (SimpleNamespace(__version__="2.5.1+cpu"), r"torch 2\.5\.1\+cpu can be made to run code"),
    ],
)
def test_torch_missing_or_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: Any, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(WeightError, match=said):
        convert_rwkv(tmp_path / "model.pth", tmp_path / "out")


@pytest.mark.parametrize("others", [["README.md"], ["config.json", "pytorch_model.bin"]])
def test_a_folder_of_rwkv_pickles_says_how_to_convert(tmp_path: Path, others: list[str]) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    for name in ["RWKV-x070-World.pth", *others]:
        (folder / name).write_text("{}")
    with pytest.raises(WeightError, match="only as pickles") as caught:
        find_checkpoint(folder)
    path = str(folder / "RWKV-x070-World.pth")
    assert str(caught.value).endswith(f"\n    mi-ref convert-rwkv '{path}' RWKV-x070-World")
    assert "pip install 'mi_ref[convert]'" in str(caught.value)
    (folder / "model.safetensors").touch()
    if "config.json" in others:
        assert find_checkpoint(folder).weights == (folder / "model.safetensors",)
    else:
        with pytest.raises(HubError, match=r"lacks config\.json"):
            find_checkpoint(folder)


def test_a_repository_of_rwkv_pickles_says_how_to_fetch_and_convert() -> None:
    held = frozenset({"rwkv7-g1-0.4b.pth", "rwkv7-g1-0.1b.pth", "README.md"})
    source = FileListing("BlinkDL/rwkv7-g1", "the Hub repository", held, Path, revision="0" * 40)
    with pytest.raises(WeightError) as caught:
        read_checkpoint(source)
    assert "pickles (rwkv7-g1-0.1b.pth, rwkv7-g1-0.4b.pth)" in str(caught.value)
    assert str(caught.value).splitlines()[1:] == [
        "    hf download BlinkDL/rwkv7-g1 rwkv7-g1-0.1b.pth --local-dir .",
        "    mi-ref convert-rwkv rwkv7-g1-0.1b.pth rwkv7-g1-0.1b",
    ]


def test_a_pth_file_itself_says_how_to_convert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rwkv-final.pth"
    path.touch()
    with pytest.raises(WeightError, match=r"rwkv-final\.pth' is a pickle\. Reading a pickle can"):
        mi_ref.from_pretrained(path)
    assert main(["inspect", str(path)]) == 1
    assert f"mi-ref convert-rwkv {path} rwkv-final" in capsys.readouterr().err
    other = path.rename(tmp_path / "model.pth")
    with pytest.raises(HubError, match="is a file; pass the folder"):
        mi_ref.from_pretrained(other)
