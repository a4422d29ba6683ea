"""Ablations are sweeps: batches, workers and resuming do not change their results."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mi_ref
import mi_ref.analysis.sweeps.workers as workers
from mi_ref import Backend, Model, SweepError
from mi_ref.analysis.ablation.dataset import dataset_ablation
from mi_ref.analysis.ablation.dataset_effects import DatasetAblation
from mi_ref.analysis.ablation.parts import Method
from mi_ref.analysis.ablation.prompt import Ablation, ablation
from mi_ref.analysis.sweeps.cells import evaluate

Load = Callable[[str, Backend, str], Model]
Call = Callable[..., Ablation | DatasetAblation]

IDS = [3, 1, 4, 11, 5]
REFS = [[9, 2, 6, 30, 8], [7, 7, 2, 21, 0]]
METHODS: tuple[Method, ...] = ("zero", "mean", "resample")


def one(model: Model, method: Method = "resample", **options: Any) -> Ablation:
    """Ablate on one prompt; two draws when resampling."""
    reference = [] if method == "zero" else REFS
    return ablation(model, IDS, method=method, reference=reference, draws=2, target=3, **options)


def many(model: Model, method: Method = "resample", **options: Any) -> DatasetAblation:
    """Ablate on three prompts; two draws when resampling."""
    prompts = [IDS, *REFS]
    return dataset_ablation(
        model, prompts, method=method, targets=[3, 4, 5], draws=2, positions=-2, **options
    )


def numbers(found: Ablation | DatasetAblation) -> list[float]:
    if isinstance(found, Ablation):
        return [x for e in found.effects for x in (e.kl, e.logit_difference or 0.0)]
    return [x for e in found.effects for x in (*e.kls, *(e.changes or ()))]


@pytest.mark.parametrize("case", ["gemma2", "gpt2", "rwkv7"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("call", [one, many])
def test_rows_of_a_batch_are_single_runs(
    load: Load, case: str, method: Method, call: Call
) -> None:  # fmt: skip
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    alone, batched = (call(model, method, what="layer", rows=rows) for rows in (1, 3))
    assert max(map(abs, numbers(alone))) > 1e-3
    assert numbers(batched) == pytest.approx(numbers(alone), rel=1e-12, abs=1e-13)


@pytest.mark.bits
@pytest.mark.parametrize("call", [one, many])
def test_workers_give_the_same_bits(load: Load, call: Call) -> None:
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    here = call(model, "mean", rows=3)
    with ThreadPoolExecutor(2) as threads:
        assert call(model, "mean", rows=3, executor=threads) == here
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as processes:
        assert call(model, "mean", rows=3, executor=processes) == here


def killed(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Make sweeps fail after some batches."""
    real, done = evaluate, list[int]()

    def failing(*given: Any) -> Any:
        if len(done) == batches:
            raise KeyboardInterrupt
        done.append(1)
        return real(*given)

    monkeypatch.setattr(workers, "evaluate", failing)


@pytest.mark.bits
@pytest.mark.parametrize("batches", [2, 9])
@pytest.mark.parametrize("call", [one, many])
def test_killed_and_resumed_gives_the_same_file(
    tiny: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call, batches: int
) -> None:
    whole = call(tiny, rows=3, resume=tmp_path / "whole")
    path, text = tmp_path / "resumed", (tmp_path / "whole").read_bytes()
    with monkeypatch.context() as patch:
        killed(patch, batches if call is many else 2)
        with pytest.raises(KeyboardInterrupt):
            call(tiny, rows=3, resume=path)
    assert 1 < path.read_bytes().count(b"\n") < text.count(b"\n")
    for cut in (path.read_bytes(), text[:-9], text[: len(text) // 2], text[:40], b""):
        path.write_bytes(cut)
        assert call(tiny, rows=3, resume=path) == whole
        assert path.read_bytes() == text
    killed(monkeypatch, 0)
    assert call(tiny, rows=3, resume=path) == whole


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"seed": 1}, "cells_sha256"),
        ({"method": "zero"}, "n_cells"),
        ({"position": 2}, r"position .*, here"),
        ({"indices": [0]}, "n_cells"),
    ],
)
@pytest.mark.parametrize("call", [one, many])
def test_the_file_of_another_ablation_is_refused(
    tiny: Model, tmp_path: Path, call: Call, options: dict[str, Any], named: str
) -> None:
    path = tmp_path / "cells"
    call(tiny, resume=path)
    before = path.read_bytes()
    with pytest.raises(SweepError, match=f"another sweep, which differs in .*{named}"):
        call(tiny, **options, resume=path)
    assert path.read_bytes() == before


def test_the_file_of_other_targets_is_refused(tiny: Model, tmp_path: Path) -> None:
    path, prompts = tmp_path / "cells", [IDS, *REFS]
    dataset_ablation(tiny, prompts, targets=[3, 4, 5], resume=path)
    with pytest.raises(SweepError, match="differs in metrics"):
        dataset_ablation(tiny, prompts, targets=[3, 5, 4], resume=path)
    with pytest.raises(SweepError, match="differs in tokens"):
        dataset_ablation(tiny, prompts[::-1], targets=[3, 4, 5], resume=path)
