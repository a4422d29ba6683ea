"""Path patching on the bundled models: positions, batches, files, recurrent models, refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, Backend, HookError, Model, ShapeError, TokenError, at
from mi_ref.analysis.measure.metrics import logit_difference
from mi_ref.analysis.patching.grid import PatchingGrid
from mi_ref.analysis.patching.paths import Receiver, path_patching
from mi_ref.errors import SweepError
from mi_ref.hooks.sites import LayerSite

CLEAN, CORRUPTED = [5, 17, 3, 39, 22, 8], [5, 17, 8, 39, 22, 8]
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
COUNTRY, LAST = 4, 5
Load = Callable[[str, Backend, str], Model]


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas")


@pytest.fixture(scope="module")
def grid(atlas: Model) -> PatchingGrid:
    return path_patching(atlas, ITALY, FRANCE)


def exact(load: Load, case: str) -> Model:
    return load(case, mi_ref.get_backend("numpy"), "float64")


def test_four_heads_move_the_capital_to_the_last_token(atlas: Model, grid: PatchingGrid) -> None:
    changes = np.asarray(grid.values) - grid.base
    order = np.argsort(-changes, axis=None)[:4]
    assert {divmod(int(n), 8) for n in order} == {(3, 6), (3, 7), (4, 6), (4, 7)}
    # No other token of the prompt can reach the last token directly.
    last = path_patching(atlas, ITALY, FRANCE, positions=-1)
    np.testing.assert_allclose(last.values, grid.values, rtol=1e-4)


@pytest.mark.parametrize(("site", "share"), [(at.v, 0.99), (at.k, 0.0), (at.q, 0.0)])
def test_the_first_mlp_writes_the_capital_into_the_values_of_layers_3_and_4(
    atlas: Model, site: LayerSite, share: float
) -> None:
    found = path_patching(atlas, ITALY, FRANCE, senders="mlp", receivers=Receiver(site[3:5]))
    first, *others = (row[0] for row in found.recovery)
    assert first == pytest.approx(share, abs=0.03)
    assert max(map(abs, others)) < 0.01


def test_positions_are_where_outputs_are_taken_from_the_other_prompt(load: Load) -> None:
    """Each position's value goes to that position, in whatever order they are named."""
    model = exact(load, "llama2")
    options: Any = {
        "receivers": [Receiver(at.k[1]), Receiver(at.v[1])],
        "metric": logit_difference(model, 7, 9),
    }
    every = path_patching(model, CLEAN, CORRUPTED, **options)
    turned = path_patching(model, CLEAN, CORRUPTED, positions=[5, 4, 3, 2, 1, 0], **options)
    assert turned.values == every.values
    # Up to the differing token, both prompts are the same.
    before = path_patching(model, CLEAN, CORRUPTED, positions=[0, 1], **options)
    np.testing.assert_allclose(before.values, before.base, rtol=1e-12)
    after = path_patching(model, CLEAN, CORRUPTED, positions=slice(2, None), **options)
    np.testing.assert_allclose(after.values, every.values, rtol=1e-12)


@pytest.mark.bits
def test_batches_threads_and_single_runs_agree(load: Load) -> None:
    model = exact(load, "gemma2")
    options: Any = {
        "receivers": [Receiver(at.q[1], heads=[0]), Receiver(at.v[2]), Receiver(at.mlp_in[1])],
        "metric": logit_difference(model, 7, 9),
        "direction": "noising",
    }
    alone = path_patching(model, CLEAN, CORRUPTED, rows=1, **options)
    for rows in (3, 16):
        found = path_patching(model, CLEAN, CORRUPTED, rows=rows, **options)
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-11)
        np.testing.assert_allclose(found.recovery, alone.recovery, rtol=1e-9, atol=1e-11)
    with ThreadPoolExecutor(2) as pool:
        threaded = path_patching(model, CLEAN, CORRUPTED, rows=3, executor=pool, **options)
    np.testing.assert_allclose(threaded.values, alone.values, rtol=1e-11)
    assert alone.base_tokens == tuple(CLEAN)
    # A receiver named twice gets the same.
    doubled = {**options, "receivers": [*options["receivers"], Receiver(at.v[2], heads=1)]}
    again = path_patching(model, CLEAN, CORRUPTED, rows=1, **doubled)
    assert again.values == alone.values


def test_on_every_array_library(backend: Backend, load: Load) -> None:
    def found(model: Model) -> PatchingGrid:
        receivers = [Receiver(at.q[1], heads=[0, 2]), Receiver(at.mlp_in[1])]
        metric = logit_difference(model, 7, 9)
        return path_patching(model, CLEAN, CORRUPTED, receivers=receivers, metric=metric, rows=3)

    expected = found(exact(load, "llama3"))
    np.testing.assert_allclose(
        found(load("llama3", backend, "float64")).values, expected.values, rtol=1e-11
    )


@pytest.mark.bits
def test_a_file_holds_what_was_measured(atlas: Model, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    options: Any = {"receivers": Receiver(at.v[3], heads=3), "rows": 8, "resume": path}
    found = path_patching(atlas, ITALY, FRANCE, **options)
    # Layers 0 to 2 come before the receiver; the others are not run.
    assert len(path.read_text(encoding="utf-8").splitlines()) == 1 + 3 * 8
    kept = path.read_bytes()
    path.write_bytes(kept[: len(kept) // 2])
    assert path_patching(atlas, ITALY, FRANCE, **options) == found
    assert path.read_bytes() == kept
    with pytest.raises(SweepError, match="another sweep"):
        path_patching(atlas, ITALY, FRANCE, freeze="all", **options)


@pytest.mark.parametrize("case", ["rwkv6", "rwkv7"])
@pytest.mark.parametrize("freeze", ["attention", "all"])
def test_time_mixing_plays_the_part_of_attention(load: Load, case: str, freeze: Any) -> None:
    model = exact(load, case)
    metric, n_layers = logit_difference(model, 7, 9), model.cfg.n_layers
    held = (at.attn_out, at.mlp_out) if freeze == "all" else (at.attn_out,)
    base = model.run(CORRUPTED, capture=[site[:] for site in held])
    source = model.run(CLEAN, capture=[at.rwkv_wkv[:]])
    end = at.rwkv_v[n_layers - 1]
    direct = path_patching(model, CLEAN, CORRUPTED, freeze=freeze, metric=metric)
    assert direct.site.startswith("at.rwkv_wkv to the logits")
    through = path_patching(
        model, CLEAN, CORRUPTED, freeze=freeze, metric=metric, receivers=Receiver(end, heads=0)
    )
    for layer in range(n_layers):
        for head in range(model.cfg.n_heads):
            edits: list[Any] = [(at.rwkv_wkv[layer], putting(source, head))]
            edits += [
                (site[n], base[site[n]])
                for site in held
                for n in range(layer + (site is at.attn_out), n_layers)
            ]
            run = model.run(CORRUPTED, edits=edits, capture=[end])
            assert direct.values[layer][head] == pytest.approx(measured(run), rel=1e-11)
            second = model.run(CORRUPTED, edits=[(end, putting(run, 0))])
            expected = through.base if layer == n_layers - 1 else measured(second)
            assert through.values[layer][head] == pytest.approx(expected, rel=1e-11)


def putting(run: Any, head: int) -> Any:
    """Return an edit that replaces one head by its value in another run."""

    def put(x: Any, hook: Any) -> None:
        x[:, :, head] = run[hook.point][:, :, head]

    return put


def measured(run: Any) -> float:
    logits = run.logits_at(-1)
    return float(logits[7] - logits[9])


def test_channel_mixing_reads_the_token_before(load: Load) -> None:
    model = exact(load, "rwkv7")
    options: Any = {"senders": "attn", "positions": -2, "metric": logit_difference(model, 7, 9)}
    found = path_patching(model, CLEAN, CORRUPTED, **options)
    assert min(abs(row[0] - found.base) for row in found.values) > 1e-9
    with pytest.raises(HookError, match=r"positions \[4\] cannot reach the logits of position 5"):
        path_patching(model, CLEAN, CORRUPTED, freeze="all", **options)


def test_table_record_and_plot(grid: PatchingGrid, atlas: Model, tmp_path: Path) -> None:
    title = str(grid).partition("\n\n")[0].replace("\n", " ")
    assert title == "KL recovery, at.z to the logits, attention frozen, denoising"
    receivers = [Receiver(at.q[4], heads=[6, 7]), Receiver(at.mlp_in[-1])]
    found = path_patching(
        atlas, ITALY, FRANCE, receivers=receivers, positions=[LAST, COUNTRY], freeze="all",
        layers=slice(2, 4), heads=[-1, 6], direction="noising",
    )  # fmt: skip
    assert found.site == (
        "at.z at positions 4, 5 to at.q[4] heads 6, 7 and at.mlp_in[5], attention and MLPs frozen"
    )
    assert (found.rows, found.columns, found.axes) == (("2", "3"), ("7", "6"), ("layer", "head"))
    record = json.loads(json.dumps(found.record()))
    assert record["site"] == found.site
    assert record["values"] == [list(row) for row in found.values]
    assert [row[COUNTRY] for row in record["str_tokens"]] == [" Italy", " France"]
    grid.plot(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("as_users_call")
@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"receivers": []}, HookError, "names none: give some, or None for the logits"),
        (
            {"receivers": Receiver(at.z[3])},
            HookError,
            r"at\.z\[3\] is not a receiver: paths end at",
        ),
        ({"receivers": Receiver(at.q[6])}, HookError, "this model's layers are 0 to 5"),
        ({"receivers": Receiver(at.rwkv_r[3])}, HookError, "does not exist in this model"),
        ({"receivers": Receiver(at.k[3], heads=[7])}, ShapeError, r"kv_heads of at\.k\[3\] \[7\]"),
        ({"receivers": Receiver(at.mlp_in[3], heads=0)}, HookError, "leave out its heads"),
        (
            {"receivers": Receiver(at.q[3]), "layers": [3, 4]},
            HookError,
            r"no sender at at\.z in layers \[3, 4\] comes before a receiver, at\.q\[3\]:",
        ),
        (
            {"senders": "mlp", "receivers": Receiver(at.mlp_in[3]), "layers": 3},
            HookError,
            r"no sender at at\.mlp_out in layers \[3\]",
        ),
        ({"positions": [1, COUNTRY]}, HookError, r"positions \[1, 4\] cannot reach the logits"),
        ({"positions": 6}, ShapeError, r"positions \[6\] of 6"),
        ({"heads": 8}, ShapeError, r"heads \[8\] of 8"),
        ({"layers": 6}, ShapeError, r"layers \[6\] of 6"),
        ({"senders": "mlp", "heads": 1}, ShapeError, "only senders='head' has heads, not 'mlp'"),
        (
            {"senders": "neuron"},
            ArgumentError,
            "senders='neuron': expected 'head', 'attn' or 'mlp'",
        ),
        ({"freeze": "mlp"}, ArgumentError, "freeze='mlp': expected 'attention' or 'all'"),
        ({"direction": "both"}, ArgumentError, "direction='both'"),
        ({"rows": 0}, ShapeError, "rows=0"),
        ({"clean": "The capital of the country Italy is"}, TokenError, "clean has 8 tokens"),
    ],
)
def test_refusals(atlas: Model, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        path_patching(atlas, **{"clean": ITALY, "corrupted": FRANCE, **options})
