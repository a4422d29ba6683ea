"""Attention dose-responses compared with patterns scaled by hand; calibration, interpolation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, Backend, HookError, Model, ShapeError, at, do
from mi_ref.analysis.attention.calibration import DOSES, Calibration, calibrate
from mi_ref.analysis.attention.dose_response import AttentionDoseResponse, crossing
from mi_ref.analysis.attention.doses import attention_dose_response
from mi_ref.analysis.attention.knockout import attention_knockout
from tests.fixtures.by_hand import log_probs

PROMPT = "The capital of France is"
IDS = [5, 17, 3, 40, 22, 9]


@pytest.fixture(scope="module")
def found(atlas: Model) -> AttentionDoseResponse:
    return attention_dose_response(atlas, PROMPT, key=4, weights=[1.0, 0.0, 0.1, 0.5])


def with_row(model: Model, layer: int, rows: dict[int, Any], query: int) -> Any:
    """Return log-probabilities with these heads' rows of the pattern replaced."""
    run = model.run(IDS, capture=[at.pattern[layer]])
    pattern = np.array(run[at.pattern[layer]])
    for head, row in rows.items():
        pattern[0, head, query] = row
    edited = model.run(IDS, edits=[(at.pattern[layer], pattern)])
    return log_probs(np.asarray(edited.logits)[0])


@pytest.mark.parametrize("case", ["llama2", "gemma2", "gpt2"])
@pytest.mark.parametrize("how", ["scale", "set"])
def test_every_dose_is_the_pattern_changed_by_hand(
    load: Callable[[str, Backend, str], Model], case: str, how: str
) -> None:
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    layer, query, key, heads = model.cfg.n_layers - 1, 4, 3, [0, 2]
    run = model.run(IDS, capture=[at.pattern[layer]])
    own = np.asarray(run[at.pattern[layer]])[0]
    doses = (0.0, 0.3, 0.9)
    given: dict[str, Any] = {"factors" if how == "scale" else "weights": doses}
    found = attention_dose_response(
        model, IDS, layer=-1, heads=heads, query=query, key=key, position=query, target=7, **given
    )
    assert found.baseline == pytest.approx(own[heads, query, key].mean(), rel=1e-12)
    before = log_probs(np.asarray(run.logits)[0])[query]
    assert [d.dose for d in found.doses] == list(doses)
    for dose in found.doses:
        rows = {}
        for head in heads:
            row = own[head, query].copy()
            rest = row.sum() - row[key]
            if how == "scale":
                row[key] *= dose.dose
                row /= row.sum()
            else:
                row *= (1 - dose.dose) / rest
                row[key] = dose.dose
            rows[head] = row
        after = with_row(model, layer, rows, query)[query]
        assert dose.kl == pytest.approx(np.sum(np.exp(before) * (before - after)), rel=1e-6)
        assert dose.target.after == pytest.approx(np.exp(after[7]), rel=1e-10)
        attention = np.mean([row[key] for row in rows.values()])
        assert dose.attention == pytest.approx(attention, rel=1e-10, abs=1e-15)


def test_nothing_is_given_to_later_tokens(load: Callable[[str, Backend, str], Model]) -> None:
    """candle-mi's SetValue spreads an edge's weight over all columns, including later ones."""
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    layer, query, key, weight = 1, 3, 3, 0.01
    own = np.asarray(model.run(IDS, capture=[at.pattern[layer]])[at.pattern[layer]])[0]
    found = attention_dose_response(
        model, IDS, layer=layer, query=query, key=key, weights=[weight], position=query, target=7
    )
    leaking, causal = {}, {}
    for head in range(model.cfg.n_heads):
        row = own[head, query]
        assert row[key] > weight
        spread = np.maximum(0, row - (weight - row[key]) / (len(IDS) - 1))
        spread[key] = weight
        leaking[head] = spread / spread.sum()
        assert leaking[head][query + 1 :].sum() > 0.01
        causal[head] = np.where(np.arange(len(IDS)) == key, weight, 0.0)
        causal[head][:query] = row[:query] * (1 - weight) / row[:query].sum()
    right, wrong = (with_row(model, layer, rows, query)[query, 7] for rows in (causal, leaking))
    assert found.doses[0].target.after == pytest.approx(np.exp(right), rel=1e-10)
    assert abs(right - wrong) > 1e-6


def test_known_rows(tiny: Model) -> None:
    """A uniform row of four: doubling one weight, and setting it to a half."""
    for edit, expected in (
        (do.scale_pattern(2.0, 2, 1), [0.2, 0.4, 0.2, 0.2]),
        (do.set_pattern(0.5, 2, 1), [1 / 6, 0.5, 1 / 6, 1 / 6]),
    ):
        edits = [(at.attn_scores[0], do.fill(0.0)), (at.pattern[0], edit)]
        pattern = tiny.run(IDS[:4], edits=edits, capture=[at.pattern[0]])[at.pattern[0]]
        assert pattern[0, 0, 2].tolist() == pytest.approx(expected, rel=1e-6)
        assert pattern[0, 0, 1].tolist() == pytest.approx([0.25] * 4, rel=1e-6)


def test_a_dose_of_nothing_is_a_knockout(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    model = load("gemma2", backend, "float64")
    cut = attention_knockout(model, IDS, keys=4)
    for how in ("factors", "weights"):
        found = attention_dose_response(model, IDS, key=4, **{how: [0.0]})  # type: ignore[arg-type]
        assert found.doses[0].kl == pytest.approx(cut.comparison.kl, rel=1e-9)
        assert found.doses[0].attention == 0
        assert found.baseline == pytest.approx(cut.weight, rel=1e-12)


def test_a_factor_of_one_changes_nothing(atlas: Model) -> None:
    found = attention_dose_response(atlas, PROMPT)
    assert tuple(dose.dose for dose in found.doses) == DOSES
    (same,) = (dose for dose in found.doses if dose.dose == 1)
    assert same.kl == pytest.approx(0, abs=1e-9)
    assert same.attention == pytest.approx(found.baseline, rel=1e-6)
    assert [dose.attention for dose in found.doses] == sorted(d.attention for d in found.doses)


def test_attention_to_the_subject_brings_the_capital(found: AttentionDoseResponse) -> None:
    low, little, half, _ = (dose.target for dose in found.doses)
    assert (low.token, found.how, found.layer) == (" Paris", "set", 3)
    assert low.after < little.after < half.after
    assert low.after < 0.7
    dose = found.dose_for(0.9, "probability")
    assert dose is not None
    assert 0.1 < dose < 0.5
    assert found.dose_for(0.3) == pytest.approx(0.3, rel=1e-6)
    assert found.dose_for(0.1, "probability") is None


def test_interpolation() -> None:
    """The published curve: weights .025, .05 and .1 at factors 1, 2 and 4."""
    x, y = [1.0, 2.0, 4.0], [0.025, 0.05, 0.1]
    assert crossing(x, y, 0.075) == pytest.approx(3.0)
    assert crossing(x, y, 0.2) is None
    assert crossing(x, y, 0.025) == 1.0
    assert crossing(x, y, 0.1) == 4.0
    # Where a curve turns or is flat, the first dose.
    assert crossing([0.0, 1.0, 2.0], [0.0, 1.0, 0.0], 0.5) == 0.5
    assert crossing([0.0, 1.0, 2.0], [1.0, 1.0, 0.0], 1.0) == 0
    assert crossing([0.0, 1.0, 2.0], [0.0, 1.0, 1.0], 1.0) == 1.0
    assert crossing([3.0], [0.5], 0.4) is None


def test_calibration() -> None:
    """candle-mi's own numbers are ratios; after renormalising they fall short."""
    found = Calibration(source=0.09, target=0.025)
    assert found.ratio == pytest.approx(3.6)
    assert found.factor_for(0.05, renormalise=False) == pytest.approx(2.0)
    assert found.factor_for(renormalise=False) == pytest.approx(3.6)
    assert found.weights(renormalise=False)[0] == pytest.approx((0.5, 0.0125))
    assert found.factor_for(0.05) == pytest.approx(0.05 * 0.975 / (0.025 * 0.95))
    ((_, weight),) = found.weights([found.factor_for()])
    assert weight == pytest.approx(0.09)
    with pytest.raises(ShapeError, match=r"weight=1\.0: scaling reaches weights"):
        found.factor_for(1.0)
    with pytest.raises(ShapeError, match=r"target=0\.0: weights lie between"):
        Calibration(0.1, 0.0)


def test_a_calibrated_factor_reaches_the_weight(
    load: Callable[[str, Backend, str], Model],
) -> None:
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    other = [9, 22, 40, 3]
    found = calibrate(model, other, IDS, layer=1, heads=2, source_edge=(-1, 1), target_edge=(-1, 3))
    runs = [model.run(ids, capture=[at.pattern[1]]) for ids in (other, IDS)]
    source, target = (run[at.pattern[1]][0, 2, -1] for run in runs)
    assert (found.source, found.target) == pytest.approx((source[1], target[3]), rel=1e-12)
    dosed = attention_dose_response(
        model, IDS, layer=1, heads=2, key=3, factors=[found.factor_for()]
    )
    assert dosed.doses[0].attention == pytest.approx(found.source, rel=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"factors": [1.0], "weights": [1.0]}, "two ways to dose"),
        ({"factors": []}, "name at least one dose"),
        ({"weights": []}, "name at least one dose"),
        ({"factors": [-1.0]}, "factors are not negative"),
        ({"weights": [1.5]}, "weights lie between 0 and 1"),
        ({"layer": 6}, r"layer.*\[6\] of 6"),
        ({"key": 7}, r"key.*\[7\] of 6"),
    ],
)
def test_refusals(atlas: Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        attention_dose_response(atlas, PROMPT, **options)


def test_edges_that_there_are_not(
    atlas: Model,
    load: Callable[[str, Backend, str], Model],
    found: AttentionDoseResponse,
    as_users_call: None,
) -> None:
    with pytest.raises(HookError, match=r"no edge from queries \[2\] to keys \[4\]"):
        attention_dose_response(atlas, PROMPT, query=2, key=4)
    with pytest.raises(HookError, match="no edge"):
        calibrate(atlas, PROMPT, PROMPT, target_edge=(0, 1))
    with pytest.raises(HookError, match="this recurrent model has no attention"):
        attention_dose_response(load("rwkv7", mi_ref.get_backend("numpy"), "float32"), IDS[:3])
    with pytest.raises(ArgumentError, match="of='entropy'"):
        found.dose_for(1.0, "entropy")  # type: ignore[arg-type]


def test_table_record_and_plot(found: AttentionDoseResponse, tmp_path: Path) -> None:
    rows = str(found).splitlines()
    assert "edge 5 → 4, layer 3, heads 0 to 7" in rows[0]
    assert rows[-1].split()[:2] == ["1", "1.000"]
    found.save(tmp_path / "doses.json")
    record: Any = json.loads((tmp_path / "doses.json").read_text("utf-8"))
    assert [d["kl"] for d in record["doses"]] == [d.kl for d in found.doses]
    assert (record["how"], record["baseline"]) == ("set", found.baseline)
    found.plot(tmp_path / "doses.svg")
    assert "weight set" in (tmp_path / "doses.svg").read_text("utf-8")
    found.plot(tmp_path / "doses.png")
    assert (tmp_path / "doses.png").read_bytes().startswith(b"\x89PNG")
