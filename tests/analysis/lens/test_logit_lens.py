"""The logit lens compared with brute force; its display, plot and record."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mi_ref import Backend, Model, ShapeError, TokenError, at
from mi_ref.analysis import LogitLens, logit_lens
from tests.fixtures.by_hand import log_probs

PROMPT = "The capital of France is"
IDS = [5, 17, 3, 40, 22, 9]


@pytest.fixture(scope="module")
def lens(atlas: Model) -> LogitLens:
    return logit_lens(atlas, PROMPT)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_number_equals_brute_force(
    backend: Backend, load: Callable[[str, Backend, str], Model], dtype: str
) -> None:
    model = load("llama2", backend, dtype)
    target = 7
    found = logit_lens(model, IDS, target=target, top=4)
    run = model.run(IDS, capture=[at.resid_post[:]])
    final = log_probs(model.backend.to_host(run.logits)[0])
    for layer in range(model.cfg.n_layers):
        raw = model.project_to_vocab(run[at.resid_post[layer]])
        logits = model.backend.to_host(raw)[0].astype(np.float64)
        of_layer = log_probs(logits)
        for pos in range(len(IDS)):
            cell = found[layer, pos]
            order = sorted(range(logits.shape[1]), key=lambda i: (-logits[pos, i], i))
            assert [p.id for p in cell.top.items] == order[:4]
            assert cell.target.id == target
            assert cell.target.rank == order.index(target) + 1
            assert cell.target.probability == pytest.approx(math.exp(of_layer[pos, target]), 1e-5)
            p = np.exp(of_layer[pos])
            assert cell.entropy == pytest.approx(-float(p @ of_layer[pos]), rel=1e-6)
            q = np.exp(final[pos])
            expected = float(q @ (final[pos] - of_layer[pos]))
            assert cell.kl == pytest.approx(expected, rel=1e-5, abs=1e-9)


@pytest.mark.bits
def test_last_layer_is_the_models_output_bit_for_bit(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    model = load("llama3", backend, "float32")
    run, found = model.run(IDS), logit_lens(model, IDS, top=48)
    probabilities = model.backend.to_host(model.backend.ops.softmax(run.logits))[0]
    for pos in range(len(IDS)):
        cell = found[-1, pos]
        assert cell.top.items == run.top(48, pos=pos).items
        assert [p.probability for p in cell.top.items] == sorted(probabilities[pos].tolist())[::-1]
        assert cell.kl == 0.0
        assert cell.target == cell.top[0]


def test_last_position_alone_is_the_models_own_last(atlas: Model) -> None:
    found = logit_lens(atlas, PROMPT, positions=-1)
    assert found.positions == (len(found.tokens) - 1,)
    assert found[-1, -1].top.items == atlas.run(PROMPT, logits="last").top(5).items


@pytest.mark.bits
def test_resid_post_projected_is_what_the_model_projects(tiny: Model) -> None:
    run = tiny.run(IDS, capture=[at.resid_post[-1]])
    assert (tiny.project_to_vocab(run[at.resid_post[-1]]) == run.logits).all()


def test_some_positions_are_those_of_all(atlas: Model, lens: LogitLens) -> None:
    some = logit_lens(atlas, PROMPT, positions=[-2, 1])
    assert some.positions == (4, 1)
    for layer in range(lens.n_layers):
        for pos in (1, 4):
            assert some[layer, pos].entropy == pytest.approx(lens[layer, pos].entropy, rel=1e-4)
            assert some[layer, pos].target.id == lens[layer, pos].target.id


def test_the_model_knows_its_capital(lens: LogitLens, atlas: Model) -> None:
    final = lens[-1, -1]
    assert final.top[0].token == " Paris"
    first = lens.first_layer(" Paris")
    assert first is not None
    assert lens.first_layer() == first
    assert all(lens[n, -1].top[0].token == " Paris" for n in range(first, lens.n_layers))
    assert first == 0 or lens[first - 1, -1].top[0].token != " Paris"
    near = lens.first_layer(" Paris", top=5)
    assert near is not None
    assert near <= first
    assert f"leads from layer {first} on" in lens.summary()
    assert lens.summary().startswith("' Paris' ")


def test_first_layer_counts_from_the_last_coming(atlas: Model, lens: LogitLens) -> None:
    outsider = next(
        token
        for token in range(atlas.cfg.d_vocab)
        if token not in [p.id for p in lens[-1, -1].top.items]
    )
    assert lens.first_layer(outsider, top=5) is None
    followed = logit_lens(atlas, PROMPT, target=outsider)
    assert followed.first_layer(top=atlas.cfg.d_vocab) == 0
    assert f"{atlas.token_string(outsider)!r} never leads and ends at rank" in followed.summary()
    with pytest.raises(ShapeError, match=r"top=6, but this lens kept the 5 likeliest"):
        lens.first_layer(outsider, top=6)


def test_targets_match_exactly_one_token(atlas: Model) -> None:
    paris = atlas.to_single_token(" Paris")
    assert logit_lens(atlas, PROMPT, target=" Paris")[0, -1].target.id == paris
    assert logit_lens(atlas, PROMPT, target=paris)[0, 0].target.token == " Paris"
    for part in (" Pari", "aris", " Paris is"):
        with pytest.raises(TokenError, match="is not one token"):
            logit_lens(atlas, PROMPT, target=part)
    for number in (-1, atlas.cfg.d_vocab, True):
        with pytest.raises(TokenError, match="out of range"):
            logit_lens(atlas, PROMPT, target=number)


def test_what_cannot_be_looked_at_is_refused(atlas: Model, lens: LogitLens) -> None:
    with pytest.raises(ShapeError, match=r"one prompt is needed, not 2"):
        logit_lens(atlas, [[1, 2], [3, 4]])
    with pytest.raises(ShapeError, match=r"positions \[6\] of 6"):
        logit_lens(atlas, PROMPT, positions=6)
    with pytest.raises(ShapeError, match=r"positions=\[\]"):
        logit_lens(atlas, PROMPT, positions=[])
    with pytest.raises(ShapeError, match="top=0"):
        logit_lens(atlas, PROMPT, top=0)
    with pytest.raises(ShapeError, match="layer 99: this lens has layers 0 to 5"):
        lens[99, 0]
    with pytest.raises(ShapeError, match="position 2 is not in this lens, which looked at 5"):
        logit_lens(atlas, PROMPT, positions=-1)[0, 2]


def test_vocabularies_smaller_than_top(tiny: Model) -> None:
    assert len(logit_lens(tiny, IDS, top=1000)[0, 0].top) == tiny.cfg.d_vocab


def test_table_fits_any_terminal_and_cuts_no_entry(lens: LogitLens) -> None:
    target = lens[-1, -1].target
    title = f"after position 5, ' is': target {target.token!r} (id {target.id})"
    assert str(lens).splitlines()[0] == title
    for width in (80, 120):
        console = Console(width=width, color_system=None, highlight=False)
        with console.capture() as captured:
            console.print(lens.table())
        drawn = captured.get()
        assert max(map(len, drawn.splitlines())) <= width
        assert "…" not in drawn
        assert len(drawn.strip().splitlines()) == 4 + lens.n_layers


def test_winner_is_highlighted(lens: LogitLens) -> None:
    console = Console(width=120, force_terminal=True, color_system="standard", highlight=False)
    with console.capture() as captured:
        console.print(lens.table())
    winner = repr(lens[-1, -1].target.token)
    assert f"\x1b[1;32m{winner}\x1b[0m" in captured.get().splitlines()[-2]
    assert "font-weight: bold" in lens._repr_html_()


def test_grid_shows_the_likeliest_everywhere(lens: LogitLens) -> None:
    rows = str(lens.grid()).splitlines()[-len(lens.positions) :]
    for pos, row in enumerate(rows):
        for layer in range(lens.n_layers):
            assert repr(lens[layer, pos].top[0].token) in row
    assert "layer 5" in str(lens.grid([-1]))


def test_tokens_are_text_not_markup(tiny: Model) -> None:
    found = logit_lens(tiny, IDS)
    assert "<id 9>" in str(found)
    assert "&lt;id" in found._repr_html_()


def test_record_is_strict_json_with_provenance(lens: LogitLens, tmp_path: Path) -> None:
    lens.save(tmp_path / "lens.json")
    assert [path.name for path in tmp_path.iterdir()] == ["lens.json"]

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    text = (tmp_path / "lens.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert found["provenance"]["weights_sha256"] == lens.origin.weights.sha256()
    assert found["provenance"]["dtype"] == "float32"
    assert found["provenance"]["seed"] is None
    assert found["prompt"] == PROMPT
    assert found["str_tokens"][-1] == " is"
    last = found["layers"][-1]["cells"][-1]
    assert last["target"]["probability"] == lens[-1, -1].target.probability
    assert last["kl"] == 0
    assert found["units"]["kl"] == "nats, KL(final || layer)"


@pytest.mark.parametrize(
    ("name", "start"), [("a.png", b"\x89PNG\r\n\x1a\n"), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF")]
)
def test_plot_writes_what_its_name_says(
    lens: LogitLens, tmp_path: Path, name: str, start: bytes
) -> None:
    lens.plot(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 1


def test_plot_holds_the_numbers_and_touches_no_global_state(lens: LogitLens) -> None:
    import matplotlib as mpl

    from mi_ref.analysis.lens.plot import draw

    before = dict(mpl.rcParams)
    figure = draw(lens)
    axes = figure.axes[0]
    mesh: Any = axes.collections[0]
    shown = mesh.get_array().reshape(lens.n_layers, len(lens.positions))
    assert shown[-1, -1] == lens[-1, -1].target.probability
    assert shown[0, 2] == lens[0, 2].target.probability
    texts = [text.get_text() for text in axes.texts]
    assert len(texts) == shown.size
    assert texts[2] == lens[0, 2].top[0].token.replace(" ", "␣")
    assert [label.get_text() for label in axes.get_xticklabels()][4] == "␣France"
    assert dict(mpl.rcParams) == before


def test_plot_of_a_long_prompt_leaves_cells_empty(tiny: Model) -> None:
    from mi_ref.analysis.lens.plot import draw

    assert not draw(logit_lens(tiny, [3] * 60)).axes[0].texts


def test_plot_refuses_what_it_cannot_draw(
    lens: LogitLens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match=r"ends in \.png, \.svg, \.pdf"):
        lens.plot(tmp_path / "a.doc")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mi_ref\[plot\]'"):
        lens.plot(tmp_path / "a.png")
