"""Every number that a command prints is in its JSON, or follows from numbers there."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import mi_ref
from mi_ref.cli import _parser
from tests.cli import test_cli_routes
from tests.cli.test_cli_analyses import (
    CASES,
    FRANCE,
    ITALY,
    PAIR,
    Derived,
    decimals,
    is_in,
    numbers_in,
)
from tests.fixtures.cli_calls import call

LOAD = cache(mi_ref.from_pretrained)
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once."""
    monkeypatch.setattr(mi_ref, "from_pretrained", LOAD)


def nothing(_: dict[str, Any]) -> list[float]:
    return []


def megabytes(record: dict[str, Any]) -> list[float]:
    """Return the sizes as the table has them, in units of a million bytes."""
    return [number / 1e6 for number in numbers_in(record)]


def head_names(record: dict[str, Any]) -> list[float]:
    return [float(f"{effect['layer']}.{effect['index']}") for effect in record["effects"]]


def percentages(record: dict[str, Any]) -> list[float]:
    """Return shares of right answers and of the circle, and bits for each label."""
    counts = [record["score"], *(cut["score"] for cut in record["cuts"])]
    shares = [100 * count["right"] / count["count"] for count in counts]
    shares += [region["width"] / 3.6 for region in record["regions"]]
    return [*shares, record["surprise"]["frequencies"] / record["surprise"]["count"]]


MORE: list[tuple[list[str], Derived]] = [
    (["lens", "--prompt", FRANCE, "--target", " Rome"], nothing),
    (["lens", "--prompt", FRANCE, "--position", "all"], nothing),
    (["lens", "--prompt", FRANCE, "--position", "1", "--position", "2", "--top", "1"], nothing),
    (["paths", *PAIR], nothing),
    (["paths", *PAIR, "--sender", "mlp", "--receiver", "v:3"], nothing),
    (["patch", *PAIR, "--by", "neuron", "--layer", "3"], nothing),
    (["ablate", "--prompt", FRANCE], head_names),
    (["ablate", "--prompt", FRANCE, "--prompt", ITALY, "--method", "mean",
      "--target", " Paris", "--target", " Rome"], head_names),
    (["inspect", "atlas"], megabytes),
    (["algzoo"], percentages),
    (["algzoo", "longest-cycle-h4-n4"], percentages),
]  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "derived"), MORE, ids=[f"{case[0][0]}-{n}" for n, case in enumerate(MORE)]
)
def test_every_number_printed_is_written(
    capsys: Capsys, tmp_path: Path, arguments: list[str], derived: Derived
) -> None:
    path = tmp_path / "found.json"
    status, out, err = call(capsys, *arguments, "--json", path)
    assert (status, err) == (0, "")
    shown = decimals(out.partition("\n")[2])
    assert shown
    record = json.loads(path.read_text(encoding="utf-8"))
    written = [*numbers_in(record), *derived(record)]
    assert [text for text in shown if not is_in(text, written)] == []
    assert call(capsys, *arguments, "--json", "-") == (0, path.read_text(encoding="utf-8"), "")


def test_no_command_that_writes_is_left_out() -> None:
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    writing = {
        name for name, parser in commands.choices.items()
        if "--json" in parser._option_string_actions
    }  # fmt: skip
    asked = [*(case[0] for case in CASES), *(case[0] for case in test_cli_routes.CASES),
             *(case[0] for case in MORE)]  # fmt: skip
    assert {arguments[0] for arguments in asked} == writing
