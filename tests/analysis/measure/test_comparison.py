"""Differences between two runs, compared with log-probabilities computed outside the library."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, Model, ShapeError, TokenError, at, do
from mi_ref.analysis import Comparison, attention_knockout, compare

ROWS = [[5, 17, 3, 40], [7, 7, 30, 2]]
EDIT = (at.resid_post[0], do.scale(0.5))


@pytest.fixture(scope="module")
def tiny(load: Callable[[str, Backend, str], Model]) -> Model:
    return load("gemma2", mi_ref.get_backend("numpy"), "float64")


def log_probs(logits: Any) -> Any:
    exact = np.asarray(logits, np.longdouble)
    return exact - np.log(np.exp(exact).sum())


@pytest.mark.parametrize(("row", "position"), [(0, -1), (1, -1), (1, 2), (0, 0)])
def test_each_row_and_position_is_compared_alone(tiny: Model, row: int, position: int) -> None:
    """candle-mi softmaxes the flattened tensor, which sums the divergences of all rows."""
    before, after = tiny.run(ROWS), tiny.run(ROWS, edits=[EDIT])
    found = compare(before, after, row=row, position=position, top=48)
    p, q = (log_probs(np.asarray(run.logits)[row, position]) for run in (before, after))
    assert found.kl == pytest.approx(float((np.exp(p) * (p - q)).sum()), rel=1e-12, abs=1e-18)
    assert found.kl > 0
    assert found.tokens == tuple(ROWS[row])
    moved = [change.after - change.before for change in found.changes]
    assert [abs(m) for m in moved] == sorted(map(abs, moved), reverse=True)
    for change in found.changes:
        assert change.before == pytest.approx(float(np.exp(p[change.id])), rel=1e-12)
        assert change.after == pytest.approx(float(np.exp(q[change.id])), rel=1e-12)


def test_a_destroyed_prediction_costs_what_it_costs(
    load: Callable[[str, Backend, str], Model],
) -> None:
    """candle-mi drops tokens with a probability below 1e-10, so that this would be near 0."""
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    before = model.run(ROWS[0], edits=[(at.ln_final_normalized, do.scale(400.0))])
    after = model.run(ROWS[0], edits=[(at.ln_final_normalized, do.scale(-400.0))])
    p, q = (log_probs(np.asarray(run.logits)[0, -1]) for run in (before, after))
    clamped = (np.exp(p) > 1e-10) & (np.exp(q) > 1e-10)
    assert np.exp(p)[clamped].sum() < 0.5
    assert compare(before, after).kl == pytest.approx(float((np.exp(p) * (p - q)).sum()), rel=1e-12)
    assert compare(before, after).kl > 23  # -log(1e-10): nothing that is clamped there is larger


def test_logits_of_single_tokens(tiny: Model) -> None:
    before, after = tiny.run(ROWS[0]), tiny.run(ROWS[0], edits=[EDIT])
    found = compare(before, after, top=3)
    first, second = (np.asarray(run.logits)[0, -1] for run in (before, after))
    assert len(found.changes) == 3
    assert found.change(11).logit_change == second[11] - first[11]
    assert found.logit_difference(4, 11) == (first[4] - first[11], second[4] - second[11])
    with pytest.raises(TokenError, match="out of range"):
        found.change(10**6)


def test_a_run_differs_from_itself_in_nothing(tiny: Model) -> None:
    run = tiny.run(ROWS[0])
    found = compare(run, run)
    assert found.kl == 0
    assert all(change.before == change.after for change in found.changes)


def test_two_models_are_not_compared(
    tiny: Model, load: Callable[[str, Backend, str], Model]
) -> None:
    other = load("llama2", mi_ref.get_backend("numpy"), "float64")
    with pytest.raises(ShapeError, match="two models"):
        compare(tiny.run(ROWS[0]), other.run(ROWS[0]))


@pytest.fixture(scope="module")
def halved(tiny: Model) -> Comparison:
    return compare(tiny.run(ROWS[0]), tiny.run(ROWS[0], edits=[EDIT]), top=5)


def test_table_and_record(halved: Comparison, tmp_path: Path) -> None:
    lines = str(halved).splitlines()
    assert lines[0] == f"KL {halved.kl:.4g} nats at position -1"
    assert len(lines) == 4 + 5
    halved.save(tmp_path / "c.json")
    record = json.loads((tmp_path / "c.json").read_text())
    assert record["format"] == "mi_ref.comparison/1"
    assert record["kl"] == halved.kl
    assert [c["after"] for c in record["changes"]] == [c.after for c in halved.changes]


def test_pictures(halved: Comparison, tiny: Model, tmp_path: Path) -> None:
    halved.plot(tmp_path / "c.png")
    attention_knockout(tiny, ROWS[0], top=4).plot(tmp_path / "k.png")
    for name in ("c.png", "k.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
