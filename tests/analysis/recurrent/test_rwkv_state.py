"""Measures of the state, each number compared with plain NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, at, get_backend
from mi_ref.analysis.recurrent.reads import state_reads
from mi_ref.analysis.recurrent.state import half_lives, state_norms
from mi_ref.analysis.recurrent.sweeps import (
    state_knockout_sweep,
    state_patching,
    state_steering_sweep,
)
from tests.fixtures.by_hand import host, log_probs

pytestmark = pytest.mark.usefixtures("as_users_call")

TOKENS = [3, 1, 4, 11, 5, 9, 2]
CASES = ("rwkv6", "rwkv7")


def same(outcome: Any, clean: Any, changed: Any, target: int) -> None:
    """Compare an outcome with two rows of logits; every token counts in the divergence."""
    log_p, log_q = log_probs(clean), log_probs(changed)
    assert outcome.kl == pytest.approx((np.exp(log_p) * (log_p - log_q)).sum(), rel=1e-8, abs=1e-13)
    assert outcome.probability == pytest.approx(np.exp(log_q[target]), rel=1e-10)


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas-rwkv7")


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, load: Any) -> Model:
    model: Model = load(request.param, get_backend("numpy"), "float64")
    return model


@pytest.mark.parametrize(
    ("positions", "chosen"),
    [(None, range(7)), (-1, [6]), ([0, 4], [0, 4]), ([5, -5], [5, 2]), (slice(2, 4), [2, 3])],
)
def test_norms_and_changes(positions: Any, chosen: Any, exact: Model) -> None:
    found = state_norms(exact, TOKENS, positions=positions)
    assert list(found.positions) == list(chosen)
    points = [at.rwkv_state[n] for n in range(exact.cfg.n_layers)]
    run = exact.run([TOKENS], capture=points)
    for n, point in enumerate(points):
        states = host(exact, run[point])[0]
        before = np.concatenate([np.zeros_like(states[:1]), states[:-1]])
        for column, pos in enumerate(chosen):
            size = np.linalg.norm(states[pos], axis=(-2, -1))
            change = np.linalg.norm(states[pos] - before[pos], axis=(-2, -1))
            np.testing.assert_allclose(found.norms[n][column], size, rtol=1e-10)
            np.testing.assert_allclose(found.changes[n][column], change, rtol=1e-9)
            share = np.linalg.norm(change) / np.linalg.norm(size)
            assert found.relative_change(n, column) == pytest.approx(share)


def test_half_lives(exact: Model) -> None:
    found = half_lives(exact, TOKENS)
    run = exact.run([TOKENS], capture=[at.rwkv_decay[:]])
    for n, heads in enumerate(found.half_lives):
        decay = host(exact, run[at.rwkv_decay[n]])[0]
        np.testing.assert_allclose(heads, np.log(0.5) / np.log(decay).mean(axis=0), rtol=1e-9)
        # A state left alone for that long keeps half of each row.
        kept = np.exp(np.log(decay).mean(axis=0) * np.array(heads))
        np.testing.assert_allclose(kept, 0.5, rtol=1e-9)


def test_what_never_decays_lives_for_ever(exact: Model) -> None:
    from mi_ref.analysis.recurrent.state import _half_life

    assert _half_life([1.0, 1.0]) == np.inf
    assert _half_life([0.5, 0.0]) == 0.0
    assert _half_life([0.5, 0.5]) == 1.0
    assert _half_life([0.25, 1.0]) == 1.0


@pytest.mark.parametrize("query", [-1, 0, 4])
def test_reads_give_back_what_is_read(query: int, exact: Model) -> None:
    """candle-mi drops the negative weights, and with them the output of the recurrence."""
    found = state_reads(exact, TOKENS, query=query)
    points = [site[:] for site in (at.rwkv_v, at.rwkv_wkv, at.rwkv_effective_attn)]
    run = exact.run([TOKENS], capture=points)
    assert found.query == query % len(TOKENS)
    negative = False
    for n, heads in enumerate(found.weights):
        weights, values = np.array(heads), host(exact, run[at.rwkv_v[n]])[0]
        read = np.einsum("hk,khd->hd", weights, values)
        np.testing.assert_allclose(read, host(exact, run[at.rwkv_wkv[n]])[0, query], rtol=1e-9,
                                   atol=1e-11)  # fmt: skip
        whole = host(exact, run[at.rwkv_effective_attn[n]])[0, :, query]
        np.testing.assert_allclose(weights, whole, rtol=1e-9, atol=1e-11)
        negative |= bool((weights < 0).any())
        positive = state_reads(exact, TOKENS, query=query, normalize="relu_l1").weights[n]
        clipped = np.maximum(whole, 0)
        np.testing.assert_allclose(
            positive, clipped / (clipped.sum(-1, keepdims=True) + 1e-10), rtol=1e-8, atol=1e-11
        )
    assert negative


def test_knockouts_are_runs_without_that_write(exact: Model) -> None:
    found = state_knockout_sweep(exact, TOKENS, target=6, positions=[1, -1], heads=[1])
    clean = host(exact, exact.run([TOKENS]).logits)[0, -1]
    same_as_clean = log_probs(clean)[6]
    assert found.natural == pytest.approx(np.exp(same_as_clean), rel=1e-10)

    def silenced(position: int, layers: list[int]) -> Any:
        def silence(writes: Any, hook: Any) -> Any:
            writes[:, position, 1] = 0
            return writes

        edits = [(at.rwkv_write[n], silence) for n in layers]
        return host(exact, exact.run([TOKENS], edits=edits).logits)[0, -1]

    every = list(range(exact.cfg.n_layers))
    for column, position in enumerate((1, -1)):
        for n in every:
            same(found.cells[n][column], clean, silenced(position, [n]), 6)
        same(found.together[column], clean, silenced(position, every), 6)
    assert any(cell.kl > 1e-9 for row in found.cells for cell in row)


def test_steered_writes_are_runs_with_that_write_scaled(exact: Model) -> None:
    scales = (0.0, 1.0, 2.5)
    found = state_steering_sweep(exact, TOKENS, scales, target=6, positions=[1, -2], rows=4)
    clean = host(exact, exact.run([TOKENS]).logits)[0, -1]

    def steered(scale: float, layers: list[int]) -> Any:
        def steer(writes: Any, hook: Any) -> Any:
            writes[:, [1, -2]] *= scale
            return writes

        edits = [(at.rwkv_write[n], steer) for n in layers]
        return host(exact, exact.run([TOKENS], edits=edits).logits)[0, -1]

    every = list(range(exact.cfg.n_layers))
    for column, scale in enumerate(scales):
        for n in every:
            same(found.cells[n][column], clean, steered(scale, [n]), 6)
        same(found.together[column], clean, steered(scale, every), 6)
    assert found.columns == ("× 0", "× 1", "× 2.5")
    assert max(abs(row[1].kl) for row in found.cells) < 1e-14
    assert min(row[2].kl for row in found.cells) > 1e-12
    one = state_steering_sweep(exact, TOKENS, [0.0], target=6, positions=[1])
    knocked = state_knockout_sweep(exact, TOKENS, target=6, positions=[1])
    assert [row[0] for row in one.cells] == [row[0] for row in knocked.cells]


@pytest.mark.bits
def test_sweeps_of_the_state_go_on_where_they_were(exact: Model, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    whole = state_knockout_sweep(exact, TOKENS, target=6, rows=5, resume=path)
    held = path.read_bytes()
    path.write_bytes(held[: len(held) // 2])
    assert state_knockout_sweep(exact, TOKENS, target=6, rows=5, resume=path) == whole
    assert path.read_bytes() == held


def test_patches_are_runs_from_a_patched_state(exact: Model) -> None:
    first, source, after = TOKENS[:4], [7, 20, 8], [9, 2]
    found = state_patching(exact, first, source, after, target=6)
    own, other = (exact.run([ids]).state for ids in (first, source))
    assert own is not None
    assert other is not None
    clean = host(exact, exact.run([after], state=own).logits)[0, -1]
    np.testing.assert_allclose(
        clean, host(exact, exact.run([first + after]).logits)[0, -1], rtol=1e-9
    )
    for n in range(exact.cfg.n_layers):
        for head in range(exact.cfg.n_heads):
            wkv = host(exact, own[n].wkv).copy()
            wkv[:, head] = host(exact, other[n].wkv)[:, head]
            patched = exact.run([after], state=own.with_layer(n, wkv=wkv))
            same(found.cells[n][head], clean, host(exact, patched.logits)[0, -1], 6)
    assert found.columns == tuple(f"head {n}" for n in range(exact.cfg.n_heads))


def test_a_state_patched_with_itself_changes_nothing(exact: Model) -> None:
    found = state_patching(exact, TOKENS, TOKENS, [9, 2])
    assert {cell.kl for row in found.cells for cell in row} == {0.0}


def test_where_the_bundled_model_keeps_the_capital(atlas: Model) -> None:
    prompts = ("The capital of France", "The capital of Italy", " is")
    found = state_patching(atlas, *prompts, target=" Rome")
    assert found.strongest() == (3, 2)
    assert found.cells[3][2].probability > 0.9
    others = [c.probability for n, row in enumerate(found.cells) for h, c in enumerate(row)
              if (n, h) != (3, 2)]  # fmt: skip
    assert max(others) < 0.01
    knocked = state_knockout_sweep(atlas, "The capital of France is", target=" Paris")
    assert knocked.strongest() == (3, 4)
    assert knocked.natural > 0.99
    assert knocked.cells[3][4].probability < 0.01


def test_a_knocked_out_token_is_not_invisible(atlas: Model) -> None:
    """candle-mi's documentation says that it is; token shift and removal still show it."""
    capital, prompt = "The capital of France is", "The capital of Italy is"
    first, second = (state_knockout_sweep(atlas, text, target=" the", positions=[4])
                     for text in (capital, prompt))  # fmt: skip
    assert first.together[0].probability != second.together[0].probability


def test_on_every_array_library(backend: Backend, load: Any) -> None:
    model: Model = load("rwkv7", backend, "float32")
    assert state_norms(model, TOKENS).changes[0][0] == state_norms(model, TOKENS).norms[0][0]
    assert min(min(rows) for heads in half_lives(model, TOKENS).half_lives for rows in heads) > 0
    assert len(state_reads(model, TOKENS).weights) == model.cfg.n_layers
    assert state_knockout_sweep(model, TOKENS, positions=-2).natural > 0
    assert state_patching(model, [3, 1], [7], [9]).cells[0][0].kl > 0


def test_models_that_attend_are_refused(tiny: Model) -> None:
    for analysis in (state_norms, half_lives, state_reads, state_knockout_sweep):
        with pytest.raises(HookError, match=r"at\.rwkv_\w+ does not exist in this model"):
            analysis(tiny, TOKENS)
    with pytest.raises(ShapeError, match="llama2 attends and has no recurrent state: patch its"):
        state_patching(tiny, [3], [4], [5])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: state_norms(m, TOKENS, positions=7), r"positions \[7\] of 7"),
        (lambda m: state_reads(m, TOKENS, query=-8), r"query \[-8\] of 7"),
        (lambda m: state_norms(m, [TOKENS, TOKENS]), r"one prompt is needed, not 2"),
        (lambda m: state_knockout_sweep(m, TOKENS, layers=9), r"layers \[9\] of 3"),
        (lambda m: state_knockout_sweep(m, TOKENS, positions=[]), r"names none of the 7"),
        (lambda m: state_steering_sweep(m, TOKENS, []), r"scales is empty"),
    ],
)
def test_what_is_not_there_is_refused(call: Any, message: str, load: Any) -> None:
    with pytest.raises(ShapeError, match=message):
        call(load("rwkv7", get_backend("numpy"), "float64"))


def test_they_print_save_and_plot(atlas: Model, tmp_path: Path) -> None:
    prompt = "The capital of France is"
    results = {
        "state_norms": state_norms(atlas, prompt, positions=[4, 5]),
        "half_lives": half_lives(atlas, prompt),
        "state_reads": state_reads(atlas, prompt),
        "state_knockout": state_knockout_sweep(atlas, prompt, positions=[4], layers=[2, 3]),
        "state_steering": state_steering_sweep(atlas, prompt, [0.5], layers=[3]),
        "state_patching": state_patching(atlas, "The capital of France", "Italy", " is", layers=3),
    }
    for kind, result in results.items():
        result.save(tmp_path / "x.json")
        record = json.loads((tmp_path / "x.json").read_text())
        assert record["format"] == f"mi_ref.{kind}/1"
        result.plot(tmp_path / f"{kind}.png")
        assert (tmp_path / f"{kind}.png").read_bytes()[:4] == b"\x89PNG"
        for name in ("norms", "half_lives", "weights"):
            if name in record:
                np.testing.assert_array_equal(record[name], getattr(result, name))
    grid: Any = results["state_knockout"]
    assert "4 ' France'" in str(grid)
    assert f"{grid.cells[1][0].kl:.2f}" in str(grid).splitlines()[-2]
    assert str(results["half_lives"]).splitlines()[4].split()[:2] == ["0", "0"]
