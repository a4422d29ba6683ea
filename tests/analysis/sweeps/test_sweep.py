"""Sweeps: rows of a batch equal single runs on every executor; their tables and errors."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import (
    Backend,
    BackendError,
    HookError,
    Model,
    ShapeError,
    SweepError,
    TokenError,
    at,
    do,
)
from mi_ref.analysis.measure.metrics import (
    Likeliest,
    LogProbability,
    Probability,
    logit_difference,
    token,
)
from mi_ref.analysis.sweeps.cells import ResolvedCell, chunks, resolve_cells
from mi_ref.analysis.sweeps.sweep import Sweep, SweepCell, sweep
from mi_ref.analysis.sweeps.workers import load as load_again, spec_of

IDS = [5, 17, 3, 39, 22, 9]
OTHER = [7, 17, 3, 38, 22, 9]
LONGER = [5, 17, 3, 39, 22, 9, 11, 2]
FAMILIES = ["llama2", "gemma2", "gpt-neox-parallel", "mixtral", "rwkv6", "rwkv7"]


def mixed_cells(model: Model) -> list[SweepCell]:
    """Return a cell of each kind of intervention that a row can hold, and some longer prompts."""
    rng, host = np.random.default_rng(1), model.backend.from_host
    one = host(rng.normal(size=(1, 1, model.cfg.d_model)))
    two = host(rng.normal(size=(1, 2, model.cfg.d_model)))
    stream = at.resid_post[-1], at.resid_pre[1]
    flat = one[0, 0, :]
    cells = [
        SweepCell(((stream[0], do.replace(one, positions=-1)),)),
        SweepCell(((stream[1], do.replace(two, positions=[1, 4])),)),
        SweepCell(((at.embed, do.add(flat, scale=0.5, positions=2)),), prompt=OTHER),
        SweepCell(((at.resid_pre[:], do.scale(0.9, positions=[0, 2])),)),
        SweepCell(((at.attn_out[0], do.zero(rows=0)), (at.mlp_out[0], do.fill(0.1, rows=[-1])))),
        SweepCell((("blocks.*.hook_mlp_out", do.project_out(flat)),)),
        SweepCell(((at.resid_pre[1], do.mean("pos")),)),
        SweepCell(((stream[0], do.replace(two, positions=[-3, -1])),), prompt=LONGER),
        SweepCell((), prompt=LONGER),
        SweepCell(()),
    ]
    if model.cfg.recurrent:
        write = do.zero(positions=2, heads=1)
        return [*cells, SweepCell(((at.rwkv_write[0], write),)),
                SweepCell(((at.rwkv_state[1], do.scale(0.5, positions=3)),))]  # fmt: skip
    return [
        *cells,
        SweepCell(((at.attn_scores[0], do.knockout(-1, 4, heads=[0])),)),
        SweepCell(((at.pattern[1], do.scale_pattern(0.5, -1, 4)),)),
        SweepCell(((at.pattern[1], do.set_pattern(0.25, -1, 4)),)),
        SweepCell(((at.z[0], do.zero(heads=1, positions=[-1])),)),
    ]


@pytest.mark.parametrize(
    ("case", "position"), [*((case, -1) for case in FAMILIES), ("llama2", 3), ("rwkv7", 3)]
)
def test_batched_rows_equal_single_runs(
    load: Callable[[str, Backend, str], Model], case: str, position: int
) -> None:
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    cells = mixed_cells(model)
    metrics = [LogProbability(token(model, n)) for n in (1, 9)]
    found = sweep(model, IDS, cells, metrics, position=position, rows=len(cells))
    groups = list(chunks(resolve_cells(model, IDS, cells, None), len(cells)))
    # All but the two longer prompts among them share their batches.
    assert [len(group) for group in groups] == [7, 2, len(cells) - 9]
    for cell, values in zip(cells, found.values, strict=True):
        run = model.run(cell.prompt or IDS, edits=cell.edits)
        logits = run.logits_at(position).astype(np.longdouble)
        expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
        np.testing.assert_allclose(values, expected[[1, 9]].astype(float), rtol=1e-12)
    if position == -1:  # An edit of later positions alone cannot show at earlier ones.
        assert len(set(found.values)) == len(cells)


def test_on_every_array_library(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    model = load("llama3", backend, "float64")
    metric = Probability(token(model, 9))
    cells = mixed_cells(model)
    batched = sweep(model, IDS, cells, metric, rows=5)
    alone = sweep(model, IDS, cells, metric, rows=1)
    np.testing.assert_allclose(batched.values, alone.values, rtol=1e-12)


def test_what_rows_cannot_share_runs_alone(tiny: Model) -> None:
    """A mean over rows, a function, an array: in a batch each would reach the other cells."""
    metric = LogProbability(token(tiny, 9))
    seen = []

    def look(x: Any, hook: Any) -> None:
        seen.append(x.shape[0])

    whole = tiny.run(OTHER, capture=[at.resid_pre[1]])[at.resid_pre[1]]
    batch_of_two = np.concatenate([whole, whole])
    alone: list[Any] = [
        look,
        whole,
        do.mean("batch"),
        do.apply(look),
        do.replace(whole[0].tolist()),
    ]
    cells = [SweepCell(((at.resid_pre[1], edit),)) for edit in alone]
    groups = chunks(resolve_cells(tiny, IDS, cells, None), 8)
    assert [len(group) for group in groups] == [1] * len(cells)
    found = sweep(tiny, IDS, cells, metric, rows=8)
    assert seen == [1, 1]
    for cell, (value,) in zip(cells, found.values, strict=True):
        run = tiny.run(IDS, edits=cell.edits)
        assert value == pytest.approx(float(metric(run.logits_at(), xp=np)), rel=1e-6)
    wrong = [SweepCell(((at.resid_pre[1], do.replace(batch_of_two)),))] * 2
    with pytest.raises(ShapeError, match=r"expected one that broadcasts to \(1, 6, 24\)"):
        sweep(tiny, IDS, wrong, metric, rows=2)


@pytest.mark.parametrize(("n_pos", "expected"), [(6, 16), (256, 16), (300, 13), (9000, 1)])
def test_long_prompts_share_a_batch_with_fewer(n_pos: int, expected: int) -> None:
    cells = [ResolvedCell(tuple(range(n_pos)), ((at.z[0], do.zero(heads=n)),)) for n in range(40)]
    assert [len(chunk) for chunk in chunks(cells, None)][:2] == [expected] * 2
    assert [len(chunk) for chunk in chunks(cells, 7)] == [7] * 5 + [5]


@pytest.mark.bits
def test_executors_give_the_same_bits(load: Callable[[str, Backend, str], Model]) -> None:
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    cells = mixed_cells(model)
    metric = [Probability(token(model, 9)), Likeliest()]
    here = sweep(model, IDS, cells, metric, rows=3)
    with ThreadPoolExecutor(2) as threads:
        assert sweep(model, IDS, cells, metric, rows=3, executor=threads) == here
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as processes:
        assert sweep(model, IDS, cells, metric, rows=3, executor=processes) == here


@pytest.mark.parametrize("processes", [False, True], ids=["threads", "processes"])
def test_a_local_dask_cluster_gives_the_same_bits(
    load: Callable[[str, Backend, str], Model], processes: bool
) -> None:
    distributed = pytest.importorskip("distributed")
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    cells, metric = mixed_cells(model), Probability(token(model, 9))
    alone = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with distributed.Client(processes=processes, **alone) as client:
        found = sweep(model, IDS, cells, metric, rows=3, executor=client.get_executor())
    assert found == sweep(model, IDS, cells, metric, rows=3)


@pytest.mark.bits
def test_workers_load_the_same_model_once(load: Callable[[str, Backend, str], Model]) -> None:
    model = load("gemma2", mi_ref.get_backend("numpy"), "float64")
    spec = spec_of(model)
    assert (spec.dtype, spec.backend, spec.device) == ("float64", "numpy", None)
    assert load_again(spec) is load_again(spec_of(model))
    assert np.array_equal(load_again(spec).run(IDS).logits_at(), model.run(IDS).logits_at())


def test_workers_refuse_what_they_cannot_load(
    read_only: Backend, load: Callable[[str, Backend, str], Model], tmp_path: Path, repository: Path
) -> None:
    import shutil
    from dataclasses import replace

    with pytest.raises(BackendError, match="no backend named 'numpy-readonly'"):
        spec_of(load("llama2", read_only, "float32"))
    shutil.copytree(repository / "golden" / "data" / "llama2", tmp_path / "model")
    spec = spec_of(mi_ref.from_pretrained(tmp_path / "model"))
    with pytest.raises(SweepError, match="found other weights under"):
        load_again(replace(spec, sha256="0" * 64))


def test_table_record_and_plot(tiny: Model, tmp_path: Path) -> None:
    metrics = [logit_difference(tiny, 9, 1), Probability(token(tiny, 9))]
    cells = [
        SweepCell(((at.z[0], do.zero(heads=h)),), OTHER if h else None, f"0.{h}") for h in (0, 1)
    ]
    found = sweep(tiny, IDS, cells, metrics)
    assert isinstance(found, Sweep)
    lines = str(found).splitlines()
    assert lines[2].split()[:2] == ["0", "0.0"]
    assert f"{found.values[1][0]:.4g}" in lines[3]
    record = json.loads(json.dumps(found.record()))
    assert record["format"] == "mi_ref.sweep/1"
    assert record["tokens"] == [IDS, OTHER]
    assert [cell["prompt"] for cell in record["cells"]] == [0, 1]
    assert [tuple(cell["values"]) for cell in record["cells"]] == list(found.values)
    assert record["metrics"][0]["metric"] == "logit_difference"
    found.plot(tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes()[:4] == b"\x89PNG"


def test_refusals(tiny: Model) -> None:
    metric = Probability(token(tiny, 9))
    cell = SweepCell(((at.z[0], do.zero(heads=0)),))
    with pytest.raises(ShapeError, match="needs at least one cell"):
        sweep(tiny, IDS, [], metric)
    with pytest.raises(ShapeError, match="rows=0: a sweep runs at least one"):
        sweep(tiny, IDS, [cell], metric, rows=0)
    with pytest.raises(ShapeError, match=r"metric=\(\): a sweep needs something"):
        sweep(tiny, IDS, [cell], [])
    with pytest.raises(ShapeError, match="position=6: the shortest prompt has 6 tokens"):
        sweep(tiny, LONGER, [cell, SweepCell((), IDS)], metric, position=6)
    with pytest.raises(ShapeError, match="one prompt is needed, not 2"):
        sweep(tiny, [IDS, OTHER], [cell], metric)
    with pytest.raises(TokenError, match="out of range"):
        sweep(tiny, IDS, [SweepCell((), [10**6])], metric)
    with pytest.raises(HookError, match="no hook point is named 'blocks"):
        sweep(tiny, IDS, [SweepCell((("blocks.0.hook_resid_pots", do.zero()),))], metric)
    with pytest.raises(HookError, match="A cell is one prompt: leave rows= out"):
        sweep(tiny, IDS, [SweepCell(((at.z[0], do.zero(rows=1)),))], metric)
    with pytest.raises(HookError, match="names no row: leave rows= out"):
        sweep(tiny, IDS, [SweepCell(((at.z[0], do.zero(rows=[])),))], metric)
    with pytest.raises(HookError, match="heads"):
        sweep(tiny, IDS, [cell, SweepCell(((at.z[0], do.zero(heads=99)),))], metric)
