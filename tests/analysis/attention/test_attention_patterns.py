"""Attention patterns compared with the captured pattern; their table, record and plot."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, at
from mi_ref.analysis.attention.patterns import (
    AttentionPatterns,
    attention_patterns,
    layer_patterns,
)
from mi_ref.testing import relative_error

PROMPT = "The capital of France is"
IDS = [5, 17, 3, 40, 22, 9]


@pytest.fixture(scope="module")
def found(atlas: Model) -> AttentionPatterns:
    return attention_patterns(atlas, PROMPT)


@pytest.mark.bits
@pytest.mark.parametrize("case", ["llama2", "gemma2", "gpt2", "mistral-window"])
def test_every_number_comes_from_the_pattern(
    load: Callable[[str, Backend, str], Model], case: str
) -> None:
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    found = attention_patterns(model, IDS, top=3)
    run = model.run(IDS, capture=[at.pattern[:]])
    for layer in range(model.cfg.n_layers):
        pattern = run[at.pattern[layer]][0]
        for head in (None, *range(model.cfg.n_heads)):
            own = pattern.mean(0) if head is None else pattern[head]
            for pos in range(len(IDS)):
                row = own[pos]
                look = found.look(layer, head, pos)
                assert (look.layer, look.head, look.position) == (layer, head, pos)
                assert found.attention_from(layer, pos, head) == tuple(row)
                assert found.attention_to(layer, pos, head) == tuple(own[:, pos])
                assert look.sink == row[0]
                positive = row[row > 0]
                assert look.entropy == pytest.approx(-(positive * np.log(positive)).sum(), 1e-12)
                assert look.distance == pytest.approx(row @ (pos - np.arange(len(IDS))), abs=1e-12)
                best = [key for key in np.argsort(-row, kind="stable") if row[key] > 0][:3]
                assert [key.position for key in look.top] == best
                assert [key.weight for key in look.top] == [row[key] for key in best]


@pytest.mark.bits
def test_layer_by_layer_is_one_pass_bit_for_bit(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    model = load("llama3", backend, "float32")
    run = model.run([IDS, IDS[::-1]], capture=[at.pattern[:]])
    layers = range(model.cfg.n_layers)
    passed = list(layer_patterns(model, [IDS, IDS[::-1]], layers))
    assert [layer for layer, _ in passed] == list(layers)
    host = model.backend.to_host
    for layer, pattern in passed:
        assert (host(pattern) == host(run[at.pattern[layer]])).all()
    # The layers between the selected ones still run.
    found = attention_patterns(model, IDS, layers=[-1], heads=[1, -1])
    alone = host(model.run(IDS, capture=[at.pattern[-1]])[at.pattern[-1]])[0]
    # One prompt of two is the prompt alone to rounding: a product of more rows may add otherwise.
    assert relative_error(alone, host(run[at.pattern[-1]])[0]) <= 5e-6
    for head in (1, -1):
        assert found.attention_from(-1, 3, head) == tuple(alone[head, 3].tolist())


def test_means_over_heads_of_known_patterns(tiny: Model) -> None:
    """One head looks everywhere alike, one at itself with 0.7: candle-mi's own example."""
    flat = np.full((4, 4), 0.25)
    diagonal = np.full((4, 4), 0.1) + 0.6 * np.eye(4)
    found = AttentionPatterns(
        tokens=(1, 2, 3, 4),
        str_tokens=("a", "b", "c", "d"),
        layers=(0,),
        heads=(0, 1),
        position=3,
        patterns=(np.stack([flat, diagonal]),),
        n_top=4,
        n_layers=1,
        n_heads=2,
        origin=tiny.origin,
    )
    assert found.attention_from(0, 0) == pytest.approx([0.475, 0.175, 0.175, 0.175])
    assert found.attention_to(0, 0) == pytest.approx([0.475, 0.175, 0.175, 0.175])
    assert found.look(0, 0).entropy == pytest.approx(math.log(4))
    assert found.look(0, 0).distance == pytest.approx(1.5)
    assert found.look(0, 1).top[0].token == "d"


def test_what_the_bundled_model_looks_at(found: AttentionPatterns) -> None:
    look = found.look(3, 0)
    assert look.top[0].token == " France"
    assert look.top[0].weight > 0.99
    assert look.entropy < 0.02
    assert look.distance == pytest.approx(1.0, abs=0.01)
    peak = found.peak(key=4)
    weights = [found.attention_from(layer)[4] for layer in range(6)]
    assert (peak.layer, peak.head) == (int(np.argmax(weights)), None)


def test_a_head_that_looks_at_one_token_has_no_entropy(found: AttentionPatterns) -> None:
    first = found.look(0, 0, position=0)
    assert (first.sink, first.entropy, first.distance) == (1.0, 0.0, 0.0)
    assert len(first.top) == 1


def test_the_mean_goes_over_the_heads_looked_at(atlas: Model, found: AttentionPatterns) -> None:
    some = attention_patterns(atlas, PROMPT, layers=slice(2, 4), heads=[0, 3])
    assert (some.layers, some.heads) == ((2, 3), (0, 3))
    expected = np.mean([found.attention_from(3, None, head) for head in (0, 3)], axis=0)
    assert some.attention_from(3) == pytest.approx(expected.tolist(), rel=1e-6)
    with pytest.raises(ShapeError, match=r"layer 5 was not looked at; 2, 3 were"):
        some.look(-1)
    with pytest.raises(ShapeError, match=r"head 1 was not looked at; 0, 3 were"):
        some.look(2, 1)
    assert "mean over heads 0, 3" in str(some)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": 6}, r"layers.*\[6\] of 6: expected indices from -6 to 5"),
        ({"heads": [0, 8]}, r"heads.*\[8\] of 8"),
        ({"position": 6}, r"position.*\[6\] of 6"),
        ({"layers": []}, r"layers=\[\] names none"),
        ({"top": 0}, r"top=0: at least one key"),
    ],
)
def test_refusals(atlas: Model, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        attention_patterns(atlas, PROMPT, **options)


def test_it_looks_at_one_prompt(atlas: Model) -> None:
    with pytest.raises(ShapeError, match="one prompt"):
        attention_patterns(atlas, [[1, 2], [3, 4]])


def test_a_recurrent_model_has_no_pattern(load: Callable[[str, Backend, str], Model]) -> None:
    model = load("rwkv7", mi_ref.get_backend("numpy"), "float32")
    with pytest.raises(HookError, match=r"at\.pattern.*rwkv_effective_attn"):
        attention_patterns(model, [1, 2, 3])


def test_tables_show_layers_or_heads(found: AttentionPatterns) -> None:
    rows = str(found).splitlines()
    assert "from position 5, ' is': mean over heads 0 to 7" in rows[0]
    assert len(rows) == 4 + 6
    row = next(row for row in str(found.table(3)).splitlines() if row.split()[:1] == ["0"])
    assert "4 ' France'" in row
    assert "0.999" in row
    assert str(found.table(3)).splitlines()[-1].split()[0] == "mean"


def test_record_holds_every_number_shown(found: AttentionPatterns, tmp_path: Path) -> None:
    found.save(tmp_path / "patterns.json")
    record = json.loads((tmp_path / "patterns.json").read_text("utf-8"))
    assert record["format"] == "mi_ref.attention_patterns/1"
    assert record["str_tokens"][4] == " France"
    assert len(record["looks"]) == 6 * 9
    for look in record["looks"]:
        own = found.look(look["layer"], look["head"])
        assert (look["entropy"], look["sink"]) == (own.entropy, own.sink)
        assert look["weights"] == list(found.attention_from(look["layer"], None, look["head"]))


def test_plot_draws_one_head_or_the_mean(found: AttentionPatterns, tmp_path: Path) -> None:
    found.plot(tmp_path / "head.png", 3, 0)
    found.plot(tmp_path / "mean.svg")
    assert (tmp_path / "head.png").read_bytes().startswith(b"\x89PNG")
    assert "mean over heads" in (tmp_path / "mean.svg").read_text("utf-8")
