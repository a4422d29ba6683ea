"""Activation patching against patches made by hand, and on the bundled models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, Backend, HookError, Model, ShapeError, SweepError, TokenError, at
from mi_ref.analysis.measure.metrics import LogProbability, logit_difference, token
from mi_ref.analysis.patching.activations import (
    activation_patching,
    head_patching,
    neuron_patching,
)
from mi_ref.analysis.patching.grid import PatchingGrid
from mi_ref.hooks.sites import LayerSite

CLEAN, CORRUPTED = [5, 17, 3, 39, 22], [5, 17, 8, 39, 22]
FRANCE, ITALY = "The capital of France is", "The capital of Italy is"


@pytest.fixture(scope="module")
def grid(atlas: Model) -> PatchingGrid:
    return activation_patching(atlas, FRANCE, ITALY)


def exact(load: Callable[[str, Backend, str], Model], case: str) -> Model:
    return load(case, mi_ref.get_backend("numpy"), "float64")


class Hand:
    """Patches made in place by a function, between two prompts at one site."""

    def __init__(self, model: Model, base: list[int], source: list[int], site: LayerSite) -> None:
        self._model, self._base, self._site = model, base, site
        self._donor = model.run(source, capture=[site[:]])
        self.source = log_probs(self._donor.logits_at())
        self.base = log_probs(model.run(base).logits_at())

    def kl(self, other: Any) -> float:
        return float((np.exp(self.source) * (self.source - other)).sum())

    def __call__(self, layer: int, *where: Any) -> tuple[float, float]:
        """Return the logit difference of 7 and 9, and the recovery."""
        point = self._site[layer]

        def patch(x: Any, hook: Any) -> None:
            x[where] = self._donor[point][where]

        patched = log_probs(self._model.run(self._base, edits=[(point, patch)]).logits_at())
        return float(patched[7] - patched[9]), 1 - self.kl(patched) / self.kl(self.base)


def log_probs(logits: Any) -> Any:
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum())


ALL = slice(None)


@pytest.mark.parametrize(
    ("case", "direction", "site"),
    [
        ("llama2", "denoising", at.resid_pre),
        ("llama2", "noising", at.attn_out),
        ("gemma2", "denoising", at.attn_out),
        ("gemma2", "noising", at.mlp_out),
        ("gpt2", "denoising", at.resid_pre),
        ("gpt-neox-parallel", "denoising", at.mlp_out),
        ("rwkv7", "noising", at.resid_pre),
    ],
)
def test_every_cell_is_the_patch_made_by_hand(
    load: Callable[[str, Backend, str], Model], case: str, direction: Any, site: LayerSite
) -> None:
    model = exact(load, case)
    found = activation_patching(
        model, CLEAN, CORRUPTED, site=site, direction=direction,
        metric=logit_difference(model, 7, 9), rows=7,
    )  # fmt: skip
    base, source = (CORRUPTED, CLEAN) if direction == "denoising" else (CLEAN, CORRUPTED)
    assert (list(found.base_tokens), list(found.source_tokens)) == (base, source)
    hand = Hand(model, base, source, site)
    assert found.kl == pytest.approx(hand.kl(hand.base), rel=1e-12)
    assert found.source == pytest.approx(float(hand.source[7] - hand.source[9]), rel=1e-12)
    assert found.base == pytest.approx(float(hand.base[7] - hand.base[9]), rel=1e-12)
    for layer in range(model.cfg.n_layers):
        for pos in range(len(base)):
            value, share = hand(layer, ALL, pos)
            assert found.values[layer][pos] == pytest.approx(value, rel=1e-11)
            assert found.recovery[layer][pos] == pytest.approx(share, rel=1e-9, abs=1e-11)


def test_on_every_array_library(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    model = load("llama3", backend, "float64")
    found = activation_patching(model, CLEAN, CORRUPTED, metric=logit_difference(model, 7, 9))
    known = exact(load, "llama3")
    expected = activation_patching(known, CLEAN, CORRUPTED, metric=logit_difference(known, 7, 9))
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-11)


def test_only_the_chosen_position_is_replaced(load: Callable[[str, Backend, str], Model]) -> None:
    """candle-mi replaces the whole tensor, which resets every other position to the source's.

    There every cell of layer 0 would recover everything; here only the differing position does,
    and the last layer's last position is the prediction itself.
    """
    model = exact(load, "llama2")
    metric = LogProbability(token(model, 7))
    found = activation_patching(model, CLEAN, CORRUPTED, metric=metric)
    assert found.recovery[0] == pytest.approx([0, 0, 1, 0, 0], abs=1e-12)
    assert [line[:2] for line in found.recovery] == [pytest.approx((0, 0), abs=1e-12)] * 2
    last = activation_patching(
        model, CLEAN, CORRUPTED, site=at.resid_post, layers=-1, positions=[-1, 2], metric=metric
    )
    assert last.recovery[0] == pytest.approx([1, 0], abs=1e-12)
    assert last.values[0] == pytest.approx([last.source, last.base], rel=1e-12)
    assert (last.rows, last.columns) == (("1",), ("4 '<id 22>'", "2 '<id 8>'"))


@pytest.mark.parametrize(
    ("case", "site"),
    [("llama2", at.z), ("llama2", at.v), ("gemma2", at.pattern), ("rwkv7", at.rwkv_wkv)],
)
def test_heads_are_the_patches_made_by_hand(
    load: Callable[[str, Backend, str], Model], case: str, site: LayerSite
) -> None:
    model = exact(load, case)
    metric = logit_difference(model, 7, 9)
    site_asked = None if site in (at.z, at.rwkv_wkv) else site
    found = head_patching(model, CLEAN, CORRUPTED, site=site_asked, metric=metric)
    assert found.site == repr(site)
    some = head_patching(
        model,
        CLEAN,
        CORRUPTED,
        site=site_asked,
        metric=metric,
        positions=[2, -1],
        per_position=True,
    )
    two = head_patching(model, CLEAN, CORRUPTED, site=site_asked, metric=metric, positions=[2, -1])
    n_heads = len(found.columns)
    hand = Hand(model, CORRUPTED, CLEAN, site)
    for layer, head in [(0, 0), (1, n_heads - 1)]:
        row = layer * n_heads + head
        assert some.rows[row] == f"{layer}.{head}"
        places = [
            (ALL, head, where) if site is at.pattern else (ALL, where, head)
            for where in (ALL, [2, 4], 2, 4)
        ]
        expected = [hand(layer, *place)[0] for place in places]
        values = found.values[layer][head], two.values[layer][head], *some.values[row]
        assert values == pytest.approx(expected, rel=1e-11)


@pytest.mark.bits
def test_the_order_of_positions_does_not_matter(
    load: Callable[[str, Backend, str], Model],
) -> None:
    model = exact(load, "llama2")
    found = [
        head_patching(model, CLEAN, CORRUPTED, positions=order)
        for order in (None, [4, 2, 0, 3, 1], [1, 3], [3, 1])
    ]
    assert found[0] == found[1] != found[2] == found[3]


def test_neurons_are_the_patches_made_by_hand(load: Callable[[str, Backend, str], Model]) -> None:
    model = exact(load, "gpt2")
    metric = logit_difference(model, 7, 9)
    whole = neuron_patching(model, CLEAN, CORRUPTED, layer=-1, metric=metric)
    n_layers = model.cfg.n_layers
    assert len(whole.columns) == model.hook_points.at(at.post[n_layers - 1]).shape[-1]
    each = neuron_patching(
        model, CLEAN, CORRUPTED, layer=0, neurons=[3, -1], positions=[2, 4], metric=metric
    )
    hand = Hand(model, CORRUPTED, CLEAN, at.post)
    for neuron in (0, 5):
        expected = hand(n_layers - 1, ALL, ALL, neuron)[0]
        assert whole.values[0][neuron] == pytest.approx(expected, rel=1e-11)
    for row, pos in enumerate((2, 4)):
        for column, neuron in enumerate((3, -1)):
            expected = hand(0, ALL, pos, neuron)[0]
            assert each.values[row][column] == pytest.approx(expected, rel=1e-11)


def test_the_country_carries_its_capital_up_to_layer_3(grid: PatchingGrid) -> None:
    assert str(grid.metric) == "logit ' Paris' - ' Rome'"
    subject, last = 4, 5
    carried = [line[subject] for line in grid.recovery]
    moved = [line[last] for line in grid.recovery]
    assert min(carried[:4]) > 0.99
    assert max(carried[4:]) < 0.5
    assert max(moved[:4]) < 0.1
    assert min(moved[4:]) > 0.99
    assert max(abs(x) for line in grid.recovery for x in line[:subject]) < 1e-4
    assert grid.base < -15 < 15 < grid.source


def test_noising_undoes_what_denoising_brings_back(atlas: Model, grid: PatchingGrid) -> None:
    found = activation_patching(atlas, FRANCE, ITALY, direction="noising", positions=4)
    assert (found.base, found.source) == (grid.source, grid.base)
    assert [line[0] > 0.99 for line in found.recovery] == [True] * 4 + [False] * 2


def test_the_state_reader_of_the_recurrent_model_stands_out() -> None:
    model = mi_ref.from_pretrained("atlas-rwkv7")
    found = head_patching(model, FRANCE, ITALY)
    flat = {(n, h): v for n, line in enumerate(found.recovery) for h, v in enumerate(line)}
    assert max(flat, key=lambda place: flat[place]) == (3, 2)


def test_table_summary_record_and_plot(atlas: Model, grid: PatchingGrid, tmp_path: Path) -> None:
    lines = str(grid).splitlines()
    assert lines[0] == "KL recovery, at.resid_pre, denoising"
    assert lines[2].split() == [
        "layer", "0", "'<|bos|>'", "1", "'The'", "2", "'", "capital'", "3", "'", "of'", "4",
        "'", "Italy'", "5", "'", "is'",
    ]  # fmt: skip
    assert lines[4].split() == ["0", "0.000", "0.000", "0.000", "0.000", "1.000", "0.000"]
    assert str(grid.table("value")).splitlines()[0].startswith("logit ' Paris' - ' Rome', at.")
    assert grid.summary() == (
        f"logit ' Paris' - ' Rome' is {grid.base:.3f} without a patch and {grid.source:.3f} in the"
        f" other prompt; KL {grid.kl:.3g} nats."
    )
    record = json.loads(json.dumps(grid.record()))
    assert record["format"] == "mi_ref.patching_grid/1"
    assert [row[4] for row in record["str_tokens"]] == [" Italy", " France"]
    assert [tuple(line) for line in record["recovery"]] == list(grid.recovery)
    assert [tuple(line) for line in record["values"]] == list(grid.values)
    grid.plot(tmp_path / "grid.png")
    grid.plot(tmp_path / "value.png", "value")
    for name in ("grid.png", "value.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    wide = neuron_patching(atlas, FRANCE, ITALY, layer=3, neurons=range(100, 150))
    shown = str(wide).splitlines()
    assert len(shown) == 4 + 20
    assert shown[4].split()[:2] == ["all", "117"]


@pytest.mark.bits
def test_options_reach_the_sweep(atlas: Model, grid: PatchingGrid, tmp_path: Path) -> None:
    path = tmp_path / "cells.jsonl"
    found = activation_patching(atlas, FRANCE, ITALY, rows=5, resume=path)
    np.testing.assert_allclose(found.values, grid.values, rtol=1e-4)
    assert len(path.read_text().splitlines()) == 1 + 36
    assert activation_patching(atlas, FRANCE, ITALY, rows=5, resume=path) == found
    with pytest.raises(SweepError, match="another sweep"):
        activation_patching(atlas, FRANCE, ITALY, site=at.attn_out, resume=path)


@pytest.mark.usefixtures("as_users_call")
def test_refusals(atlas: Model, tiny: Model) -> None:
    longer = "The capital of the country Italy is"
    with pytest.raises(TokenError, match=r"clean has 6 tokens \['<\|bos\|>'.*corrupted has 8 \["):
        activation_patching(atlas, FRANCE, longer)
    with pytest.raises(TokenError, match="are the same tokens: nothing can differ"):
        activation_patching(atlas, FRANCE, FRANCE)
    with pytest.raises(ShapeError, match="one prompt is needed, not 2"):
        activation_patching(atlas, [FRANCE, ITALY], ITALY)
    with pytest.raises(ShapeError, match=r"both prompts predict ' Paris'.*say what to measure"):
        activation_patching(atlas, FRANCE, "The capital of France was")
    with pytest.raises(ArgumentError, match="direction='both'"):
        activation_patching(atlas, FRANCE, ITALY, direction="both")  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match=r"positions \[6\] of 6"):
        activation_patching(atlas, FRANCE, ITALY, positions=6)
    with pytest.raises(ShapeError, match=r"layers=\[\] names none of the 6"):
        activation_patching(atlas, FRANCE, ITALY, layers=[])
    with pytest.raises(HookError, match="has the axes batch head query_pos key_pos"):
        activation_patching(atlas, FRANCE, ITALY, site=at.pattern)
    with pytest.raises(HookError, match="pos and head are needed"):
        head_patching(atlas, FRANCE, ITALY, site=at.resid_pre)
    with pytest.raises(HookError, match="does not exist in this model"):
        head_patching(atlas, FRANCE, ITALY, site=at.rwkv_wkv)
