"""A sweep killed anywhere and resumed gives the same file bit for bit; other files are refused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref.analysis.sweeps.workers as workers
from mi_ref import Model, SweepError, at, do
from mi_ref.analysis.measure.metrics import Divergence, LogProbability, Metric, Probability, token
from mi_ref.analysis.sweeps.cells import evaluate
from mi_ref.analysis.sweeps.sweep import SweepCell, sweep

IDS = [5, 17, 3, 39, 22, 9]


def cells_of(model: Model, scale: float = 0.5) -> list[SweepCell]:
    vector = np.random.default_rng(2).normal(size=model.cfg.d_model).astype(np.float32)
    return [
        SweepCell(((at.resid_pre[layer], do.add(vector, scale=scale, positions=pos)),))
        for layer in range(model.cfg.n_layers)
        for pos in range(len(IDS))
    ]


def metrics_of(model: Model) -> list[Metric]:
    return [Probability(token(model, 9)), LogProbability(token(model, 3))]


class Stop(Exception):
    """The exception that stops a sweep in these tests."""


def killed_after(monkeypatch: pytest.MonkeyPatch, parts: int) -> list[int]:
    """Make the next sweeps fail after some batches; return the number of rows of each batch."""
    real, seen = evaluate, list[int]()

    def failing(model: Model, cells: Sequence[Any], *rest: Any) -> Any:
        if len(seen) == parts:
            raise Stop
        seen.append(len(cells))
        return real(model, cells, *rest)

    monkeypatch.setattr(workers, "evaluate", failing)
    return seen


@pytest.mark.bits
@pytest.mark.parametrize("threads", [0, 2])
def test_killed_and_resumed_gives_the_same_file(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    cells, metrics = cells_of(tiny), metrics_of(tiny)
    whole = sweep(tiny, IDS, cells, metrics, rows=4, resume=tmp_path / "whole.jsonl")
    path = tmp_path / "resumed.jsonl"
    with monkeypatch.context() as patch:
        killed_after(patch, 2)
        with pytest.raises(Stop):
            sweep(tiny, IDS, cells, metrics, rows=4, resume=path)
    assert len(path.read_text().splitlines()) == 1 + 8
    executor = ThreadPoolExecutor(threads) if threads else None
    resumed = sweep(tiny, IDS, cells, metrics, rows=4, resume=path, executor=executor)
    if executor:
        executor.shutdown()
    assert resumed == whole
    assert path.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.bits
def test_wherever_the_file_was_cut(tiny: Model, tmp_path: Path) -> None:
    """A half-written line, in the middle of a batch or in the header, is computed again."""
    cells, metrics, path = cells_of(tiny)[:6], metrics_of(tiny), tmp_path / "cells.jsonl"
    whole = sweep(tiny, IDS, cells, metrics, rows=4, resume=path)
    text = path.read_bytes()
    header = text.index(b"\n") + 1
    for cut in (0, 1, header - 1, header, header + 5, header + 70, len(text) - 60, len(text) - 1):
        path.write_bytes(text[:cut])
        assert sweep(tiny, IDS, cells, metrics, rows=4, resume=path) == whole
        assert path.read_bytes() == text


@pytest.mark.bits
def test_a_finished_sweep_runs_nothing(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells, metrics, path = cells_of(tiny), metrics_of(tiny), tmp_path / "cells.jsonl"
    whole = sweep(tiny, IDS, cells, metrics, resume=path)
    killed_after(monkeypatch, 0)
    assert sweep(tiny, IDS, cells, metrics, resume=path) == whole


def test_the_file_says_which_sweep_it_is(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    found = sweep(tiny, IDS, cells_of(tiny), metrics_of(tiny), resume=path)
    header, *lines = map(json.loads, path.read_text().splitlines())
    assert header["weights_sha256"] == tiny.source.sha256()
    assert header["tokens"] == IDS
    assert header["metrics"] == [metric.record() for metric in metrics_of(tiny)]
    assert [tuple(line["values"]) for line in lines] == list(found.values)


def test_infinite_numbers_come_back(tiny: Model, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    certain = Divergence((0.0, *[-math.inf] * (tiny.cfg.d_vocab - 1)))

    without = np.zeros((1, 1, tiny.cfg.d_vocab), np.float32)
    without[..., 0] = -math.inf
    ruined = SweepCell(((at.logits, without),))
    found = sweep(tiny, IDS, [ruined, SweepCell(())], certain, resume=path, rows=1)
    again = sweep(tiny, IDS, [ruined, SweepCell(())], certain, resume=path, rows=1)
    assert found.values[0] == (math.inf,)
    assert again == found
    assert '"Infinity"' in path.read_text()


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"prompt": [5, 17, 3, 39, 22, 8]}, r"tokens \[5, 17, 3, 39, 22, 9\], here \[5"),
        ({"scale": 0.25}, "cells_sha256"),
        ({"metrics": 1}, "metrics"),
        ({"position": 2}, "position -1, here 2"),
    ],
)
def test_the_file_of_another_sweep_is_refused(
    tiny: Model, tmp_path: Path, changed: dict[str, Any], named: str
) -> None:
    path = tmp_path / "cells.jsonl"
    sweep(tiny, IDS, cells_of(tiny), metrics_of(tiny), resume=path)
    before = path.read_bytes()
    with pytest.raises(SweepError, match=f"another sweep, which differs in .*{named}"):
        sweep(
            tiny,
            changed.get("prompt", IDS),
            cells_of(tiny, changed.get("scale", 0.5)),
            metrics_of(tiny)[: changed.get("metrics", 2)],
            position=changed.get("position", -1),
            resume=path,
        )
    assert path.read_bytes() == before


def test_another_array_in_an_intervention_is_another_sweep(tiny: Model, tmp_path: Path) -> None:
    """Interventions compare equal whatever their arrays contain, so the file hashes the arrays."""
    path, metric = tmp_path / "cells.jsonl", metrics_of(tiny)[0]
    vector = np.ones(tiny.cfg.d_model, np.float32)
    sweep(tiny, IDS, [SweepCell(((at.embed, do.add(vector)),))], metric, resume=path)
    with pytest.raises(SweepError, match="cells_sha256"):
        sweep(tiny, IDS, [SweepCell(((at.embed, do.add(2 * vector)),))], metric, resume=path)


def test_other_and_damaged_files_are_refused(tiny: Model, tmp_path: Path) -> None:
    cells, metrics, path = cells_of(tiny)[:4], metrics_of(tiny), tmp_path / "cells.jsonl"
    for text in ("my notes", "my notes\n", '{"format": "other"}\n'):
        path.write_text(text)
        with pytest.raises(SweepError, match="is not a sweep's file"):
            sweep(tiny, IDS, cells, metrics, resume=path)
        assert path.read_text() == text
    path.unlink()
    sweep(tiny, IDS, cells, metrics, resume=path)
    lines = path.read_text().splitlines(keepends=True)
    for damaged in ([lines[0], lines[2]], [*lines[:2], "{}\n"], [*lines, lines[-1]]):
        path.write_text("".join(damaged))
        with pytest.raises(SweepError, match=r"line \d: .* is not cell \d with 2 numbers"):
            sweep(tiny, IDS, cells, metrics, resume=path)


def test_functions_cannot_be_told_apart(tiny: Model, tmp_path: Path) -> None:
    def look(x: Any, hook: Any) -> None:
        """Change nothing."""

    for edit in (look, do.apply(look)):
        with pytest.raises(SweepError, match="a cell edits by the function"):
            sweep(
                tiny, IDS, [SweepCell(((at.embed, edit),))], metrics_of(tiny),
                resume=tmp_path / "cells.jsonl",
            )  # fmt: skip
    assert not (tmp_path / "cells.jsonl").exists()
