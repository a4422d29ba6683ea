"""Attention knockout compared with patterns renormalised by hand, and as a grid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, TokenError, at
from mi_ref.analysis.attention.knockout import AttentionKnockout, attention_knockout
from mi_ref.analysis.attention.knockout_grid import KnockoutGrid, knockout_grid
from tests.fixtures.by_hand import log_probs

PROMPT = "The capital of France is"
IDS = [5, 17, 3, 40, 22, 9]
FAMILIES = ["llama2", "gemma2", "gpt2", "mistral-window", "phi"]


@pytest.fixture(scope="module")
def cut(atlas: Model) -> AttentionKnockout:
    return attention_knockout(atlas, PROMPT, keys=4)


@pytest.fixture(scope="module")
def grid(atlas: Model) -> KnockoutGrid:
    return knockout_grid(atlas, PROMPT, rows=1)


def by_hand(
    model: Model, layer: int, heads: list[int], queries: list[int], keys: list[int]
) -> tuple[Any, float]:
    """Return the logits with the edges' weight shared out among the others, and that weight."""
    run = model.run(IDS, capture=[at.pattern[layer]])
    own = model.backend.to_host(run[at.pattern[layer]])
    cut = np.array(own)
    for head in heads:
        for query in queries:
            cut[0, head, query, keys] = 0
            cut[0, head, query] /= cut[0, head, query].sum()
    lost = [own[0, head, query, keys].sum() for head in heads for query in queries]
    edits = [(at.pattern[layer], model.backend.from_host(cut))]
    edited = model.backend.to_host(model.run(IDS, edits=edits).logits)
    return edited[0], float(np.mean(lost))


@pytest.mark.parametrize("case", FAMILIES)
def test_it_is_the_pattern_without_the_edges(
    load: Callable[[str, Backend, str], Model], case: str
) -> None:
    """candle-mi cuts before the soft-cap, which leaves an edge ``exp(-cap)``: of 2 in gemma2."""
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    last = model.cfg.n_layers - 1
    for layer in range(model.cfg.n_layers):
        for heads, queries, keys in (([0], [5], [4]), ([1, 2], [4, 5], [4, 3])):
            found = attention_knockout(
                model, IDS, layers=layer, heads=heads, queries=queries, keys=keys, target=7
            )
            expected, weight = by_hand(model, layer, heads, queries, keys)
            before = log_probs(model.backend.to_host(model.run(IDS).logits)[0, -1])
            after = log_probs(expected[-1])
            kl = np.sum(np.exp(before) * (before - after))
            assert kl > 1e-9
            assert found.comparison.kl == pytest.approx(kl, rel=1e-6)
            assert found.target.after == pytest.approx(np.exp(after[7]), rel=1e-10)
            assert found.target.before == pytest.approx(np.exp(before[7]), rel=1e-10)
            assert found.weight == pytest.approx(weight, rel=1e-10)
            assert found.layers == (layer,)
    # Another position is compared as well as the last.
    found = attention_knockout(model, IDS, layers=last, queries=4, keys=4, position=4, target=7)
    expected, _ = by_hand(model, last, list(range(model.cfg.n_heads)), [4], [4])
    assert found.target.after == pytest.approx(np.exp(log_probs(expected[4])[7]), rel=1e-10)


def test_every_backend_cuts_alike(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    found = attention_knockout(load("gemma2", backend, "float64"), IDS, layers=[0, -1], keys=[3, 4])
    numpy = load("gemma2", mi_ref.get_backend("numpy"), "float64")
    expected = attention_knockout(numpy, IDS, layers=[0, -1], keys=[3, 4])
    assert found.comparison.kl == pytest.approx(expected.comparison.kl, rel=1e-9)
    assert found.weight == pytest.approx(expected.weight, rel=1e-12)


def test_layers_are_honoured(cut: AttentionKnockout, atlas: Model, grid: KnockoutGrid) -> None:
    """candle-mi's mask ignores the layers of its own specification."""
    others = [n for n in range(6) if n != 3]
    elsewhere = attention_knockout(atlas, PROMPT, layers=others, keys=4)
    (strongest,) = grid.strongest()
    assert (strongest.layer, strongest.kl) == (3, cut.comparison.kl)
    assert cut.comparison.kl > 10 * elsewhere.comparison.kl
    everywhere = attention_knockout(atlas, PROMPT, layers=slice(None), keys=4)
    assert everywhere.layers == tuple(range(6))
    assert everywhere.comparison.kl != cut.comparison.kl


def test_a_row_cut_whole_is_refused_and_never_nan(atlas: Model) -> None:
    """In candle-mi such a row is NaN, as is its ``to_position(0)``."""
    for options in ({"queries": 0}, {"queries": None, "keys": 0}, {"keys": None}):
        with pytest.raises(HookError, match="without any key to look at"):
            attention_knockout(atlas, PROMPT, **options)


def test_a_target_is_one_token(atlas: Model) -> None:
    """candle-mi follows the last piece of a word and ignores the others."""
    with pytest.raises(TokenError):
        attention_knockout(atlas, PROMPT, target=" Parisians")
    assert attention_knockout(atlas, PROMPT, target=" Rome").target.token == " Rome"


def test_by_default_the_last_token_stops_looking_at_the_first(atlas: Model) -> None:
    found = attention_knockout(atlas, PROMPT)
    assert (found.layers, found.queries, found.keys) == ((3,), (5,), (0,))
    assert found.heads == tuple(range(8))
    assert found.target.token == " Paris"
    assert found.position == 5


def test_the_capital_comes_over_one_edge(cut: AttentionKnockout, grid: KnockoutGrid) -> None:
    assert cut.comparison.kl > 0.3
    assert cut.target.after < 0.7 < 0.99 < cut.target.before
    first, second = grid.strongest(2)
    assert (first.layer, first.key) == (3, 4)
    assert first.kl > 10 * second.kl


@pytest.mark.parametrize("case", ["llama2", "mistral-window"])
@pytest.mark.parametrize("queries", [-1, [3, 5], None])
def test_each_cell_is_a_knockout(
    load: Callable[[str, Backend, str], Model], case: str, queries: Any
) -> None:
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    found = knockout_grid(model, IDS, queries=queries, heads=[1], keys=[0, 2, 5], target=7)
    for layer, row in zip(found.layers, found.cuts, strict=True):
        window = model.cfg.layers[layer].attn.window or len(IDS)  # type: ignore[union-attr]
        for key, cell in zip(found.keys, row, strict=True):
            whose = [5] if queries == -1 else queries or range(key + 1, len(IDS))
            seeing = [query for query in whose if key <= query < key + window]
            if not seeing:
                assert cell is None
                continue
            alone = attention_knockout(
                model, IDS, layers=layer, heads=[1], queries=seeing, keys=key, target=7
            )
            assert cell is not None
            assert cell.kl == pytest.approx(alone.comparison.kl, rel=1e-9, abs=1e-15)
            assert cell.target.after == pytest.approx(alone.target.after, rel=1e-12)
    empty = [cell for row in found.cuts for cell in row if cell is None]
    assert bool(empty) == (queries is None or case == "mistral-window")


def test_refusals(atlas: Model, load: Callable[[str, Backend, str], Model]) -> None:
    with pytest.raises(HookError, match=r"no edge from queries \[2\] to keys \[3, 4\] in layers"):
        attention_knockout(atlas, PROMPT, queries=2, keys=[3, 4])
    with pytest.raises(HookError, match="no edge"):
        knockout_grid(atlas, PROMPT, queries=1, keys=[4])
    # Within the window of three, the last position does not see the first.
    window = load("mistral-window", mi_ref.get_backend("numpy"), "float64")
    with pytest.raises(HookError, match="within the layer's window"):
        attention_knockout(window, IDS)
    for options in ({"layers": 6}, {"heads": 8}, {"queries": -7}, {"keys": 6}, {"position": 6}):
        with pytest.raises(ShapeError, match=f"{next(iter(options))}.* of [68]: expected indices"):
            attention_knockout(atlas, PROMPT, **options)  # type: ignore[arg-type]
    recurrent = load("rwkv7", mi_ref.get_backend("numpy"), "float64")
    for analysis in (attention_knockout, knockout_grid):
        with pytest.raises(HookError, match="this recurrent model has no attention"):
            analysis(recurrent, IDS[:3])


def test_tables(cut: AttentionKnockout, grid: KnockoutGrid, atlas: Model) -> None:
    text = " ".join(str(cut).split())
    assert text.startswith("5 → 4 cut in layer 3 (weight 0.531): KL 0.48")
    assert str(cut).splitlines()[-10].split()[:3] == ["'", "Paris'", "1955"]
    some = attention_knockout(atlas, PROMPT, keys=4, heads=[0, 4])
    assert "head 0, 4" in str(some)
    row = str(grid).splitlines()[-3].split()
    assert row[0] == "3"
    assert row[5] == f"{cut.comparison.kl:.3f}"
    assert "4 ' France'" in str(grid)


def test_records(cut: AttentionKnockout, grid: KnockoutGrid, tmp_path: Path) -> None:
    cut.save(tmp_path / "cut.json")
    record: Any = json.loads((tmp_path / "cut.json").read_text("utf-8"))
    assert (record["queries"], record["keys"], record["layers"]) == ([5], [4], [3])
    assert record["kl"] == cut.comparison.kl
    assert record["target"]["token"] == " Paris"
    assert record["provenance"]["weights_sha256"] == cut.origin.weights.sha256()
    grid.save(tmp_path / "grid.json")
    record = json.loads((tmp_path / "grid.json").read_text("utf-8"))
    assert record["cuts"][3][4]["kl"] == grid.strongest()[0].kl
    assert record["str_tokens"][4] == " France"


@pytest.mark.bits
def test_cells_are_rows_of_a_batch_and_kept_in_a_file(
    load: Callable[[str, Backend, str], Model], tmp_path: Path
) -> None:
    model = load("mistral-window", mi_ref.get_backend("numpy"), "float64")
    alone = knockout_grid(model, IDS, queries=None, keys=slice(0, 4), rows=1)
    path = tmp_path / "cells.jsonl"
    found = knockout_grid(model, IDS, queries=None, keys=slice(0, 4), rows=5, resume=path)
    for row, other in zip(found.cuts, alone.cuts, strict=True):
        for cut, same in zip(row, other, strict=True):
            assert (cut is None) == (same is None)
            if cut is not None and same is not None:
                assert cut.kl == pytest.approx(same.kl, rel=1e-9, abs=1e-14)
                assert cut.target.after == pytest.approx(same.target.after, rel=1e-12)
                assert cut.target.logit_change == pytest.approx(same.target.logit_change, abs=1e-12)
    held = path.read_bytes()
    path.write_bytes(held[:-60])
    again = knockout_grid(model, IDS, queries=None, keys=slice(0, 4), rows=5, resume=path)
    assert again == found
    assert path.read_bytes() == held


def test_plot(grid: KnockoutGrid, atlas: Model, tmp_path: Path) -> None:
    grid.plot(tmp_path / "grid.png")
    assert (tmp_path / "grid.png").read_bytes().startswith(b"\x89PNG")
    knockout_grid(atlas, PROMPT, queries=None).plot(tmp_path / "later.svg")
    assert "from later positions" in (tmp_path / "later.svg").read_text("utf-8")
