"""Every example in a command's help works as printed, offline."""

from __future__ import annotations

import argparse
import json
import shlex
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import mi_ref
from mi_ref.cli import _parser
from tests.fixtures.blinkdl_files import x070
from tests.fixtures.cli_calls import call
from tests.fixtures.hub_server import HubServer, Repo, point_to

LOAD = cache(mi_ref.from_pretrained)
NAMES = ("France", "Italy", "Spain")
Capsys = pytest.CaptureFixture[str]


def parsers() -> dict[str, argparse.ArgumentParser]:
    """Return each command's parser."""
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(commands.choices)


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """Return the arguments of each example of a help text, as a shell would read them."""
    shown = parser.format_help().rpartition("\nexample:\n")[2].partition("\n\n")[0]
    return [shlex.split(line)[1:] for line in shown.replace("\\\n", " ").splitlines()]


EXAMPLES = [example for parser in (_parser(), *parsers().values()) for example in examples(parser)]
OFFLINE = [
    example for example in EXAMPLES
    if example[0] not in ("inspect", "convert", "convert-rwkv") or example[1:] == ["atlas"]
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the files that examples read; each model is loaded once."""
    prompts = [f"The capital of {name} is" for name in NAMES]
    pairs = [{"prompt": a, "counterfactual": b}
             for a, b in zip(prompts, [*prompts[1:], prompts[0]], strict=True)]  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps(pairs), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mi_ref, "from_pretrained", LOAD)
    return tmp_path


@pytest.mark.parametrize("name", parsers())
def test_each_command_shows_examples_of_itself(name: str) -> None:
    shown = examples(parsers()[name])
    assert shown
    assert all(example[0] == name for example in shown)


@pytest.mark.parametrize("arguments", OFFLINE, ids=[" ".join(each)[:40] for each in OFFLINE])
def test_examples_work_as_printed(capsys: Capsys, folder: Path, arguments: list[str]) -> None:
    before = {*folder.iterdir()}
    status, out, err = call(capsys, *arguments)
    assert (status, err) == (0, "")
    assert len(out.splitlines()) > 2
    plots = [folder / value for name, value in pairwise(arguments)
             if name == "--plot"]  # fmt: skip
    assert {*folder.iterdir()} - before == {*plots}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in plots)


def test_a_checkpoint_of_the_hub_is_inspected(
    capsys: Capsys, hub_client: None, monkeypatch: pytest.MonkeyPatch, repository: Path
) -> None:
    (example,) = (each for each in EXAMPLES if each[0] == "inspect" and "/" in each[1])
    atlas = repository / "mi_ref" / "models" / "atlas"
    files = {path.name: path.read_bytes() for path in atlas.iterdir()}
    with HubServer({example[1]: Repo(files)}) as hub:
        point_to(monkeypatch, hub.url)
        status, out, _ = call(capsys, *example)
    assert status == 0
    assert "yes, as far as headers show" in out


def test_a_checkpoint_of_blinkdls_is_converted(capsys: Capsys, folder: Path) -> None:
    torch = pytest.importorskip("torch")
    (example,) = (each for each in EXAMPLES if each[0] == "convert-rwkv")
    source, out_dir, _, vocabulary = example[1:]
    torch.save({name: torch.zeros(shape) for name, shape in x070().items()}, folder / source)
    (folder / vocabulary).write_text("1 'a' 1\n", encoding="utf-8")
    status, out, err = call(capsys, *example)
    assert (status, err) == (0, "")
    assert "RWKV-7" in out
    assert (folder / out_dir / "config.json").is_file()
