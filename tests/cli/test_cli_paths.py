"""The command that patches paths: what it prints and writes, and what it refuses."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import mi_ref
from mi_ref import Model, at
from mi_ref.analysis.measure.metrics import logit_difference
from mi_ref.analysis.patching.paths import Receiver, path_patching
from tests.fixtures.cli_calls import call

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
PATHS = ["paths", "--clean", ITALY, "--corrupted", FRANCE]
LOAD = cache(mi_ref.from_pretrained)
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once."""
    monkeypatch.setattr(mi_ref, "from_pretrained", LOAD)


@pytest.fixture
def atlas() -> Model:
    return mi_ref.from_pretrained(
        "atlas",
        backend="numpy",
        device=None,
        dtype="float32",
        revision=None,
        filename=None,
        compat=None,
    )


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["--layer", "3", "--position", "-1"], {"layers": 3, "positions": -1}),
        (
            ["--sender", "mlp", "--receiver", "v:3.3", "--receiver", "mlp_in:-1"],
            {"senders": "mlp", "receivers": [Receiver(at.v[3], heads=3), Receiver(at.mlp_in[5])]},
        ),
        (
            ["--receiver", "q:4", "--freeze", "all", "--direction", "noising", "--head", "6",
             "--layer", "0", "--layer", "3", "--rows", "2"],
            {"receivers": Receiver(at.q[4]), "freeze": "all", "direction": "noising", "heads": 6,
             "layers": [0, 3], "rows": 2},
        ),
    ],
)  # fmt: skip
def test_it_prints_and_writes_what_the_analysis_found(
    capsys: Capsys, tmp_path: Path, atlas: Model, arguments: list[str], options: dict[str, Any]
) -> None:
    path, picture = tmp_path / "found.json", tmp_path / "found.png"
    status, out, err = call(capsys, *PATHS, *arguments, "--json", path, "--plot", picture)
    assert (status, err) == (0, "")
    found = path_patching(atlas, ITALY, FRANCE, **options)
    assert str(found) in out
    lines = out.splitlines()
    assert lines[1].startswith("clean      0 '<|bos|>'  1 'The'")
    assert "4 ' Italy'" in lines[1]
    assert "4 ' France'" in lines[2]
    assert lines[-1] == found.summary()
    assert json.loads(path.read_text(encoding="utf-8")) == json.loads(json.dumps(found.record()))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_answers_are_asked_for_or_predicted(capsys: Capsys, atlas: Model) -> None:
    asked = ["--target", " Rome", "--other", " Madrid", "--layer", "4", "--json", "-"]
    status, out, _ = call(capsys, *PATHS, *asked)
    assert status == 0
    metric = logit_difference(atlas, " Rome", " Madrid")
    found = path_patching(atlas, ITALY, FRANCE, metric=metric, layers=4)
    assert json.loads(out)["values"] == [list(row) for row in found.values]


def test_it_goes_on_where_it_was(capsys: Capsys, tmp_path: Path) -> None:
    kept = tmp_path / "cells.jsonl"
    command: list[str | Path] = [*PATHS, "--receiver", "q:3", "--layer", "2", "--resume", kept]
    first = call(capsys, *command)
    assert first[0] == 0
    before = kept.read_bytes()
    kept.write_bytes(before[:-30])
    assert call(capsys, *command) == first
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--receiver", "q4"], 2, "'q4' is no SITE:LAYER or SITE:LAYER.HEAD"),
        (["--receiver", "q:4.6.1"], 2, "'q:4.6.1' is no SITE:LAYER"),
        (["--sender", "mlp", "--head", "1"], 2, "--head is of --sender head"),
        (["--freeze", "mlp"], 2, "invalid choice: 'mlp'"),
        (["--receiver", "z:3"], 1, "at.z[3] is not a receiver"),
        (["--receiver", "query:3"], 1, "no hook site is named 'query'"),
        (["--receiver", "embed:3"], 1, "at.embed belongs to no layer"),
        (["--receiver", "q:0"], 1, "comes before a receiver, at.q[0]"),
        (["--position", "4"], 1, "positions [4] cannot reach the logits of position 5"),
    ],
)
def test_refusals(capsys: Capsys, arguments: list[str], status: int, said: str) -> None:
    found, out, err = call(capsys, *PATHS, *arguments)
    assert (found, out) == (status, "")
    assert said in err


def test_help_has_an_example(capsys: Capsys) -> None:
    status, out, _ = call(capsys, "paths", "--help")
    assert status == 0
    assert "example:\n  mi-ref paths" in out
