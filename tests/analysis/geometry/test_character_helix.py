"""Places in a line: wrapping, counting, and finding a planted helix."""

from __future__ import annotations

import json
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import HookError, Model, ShapeError, at
from mi_ref.analysis.geometry.helix import character_helix
from mi_ref.analysis.geometry.line_wrap import counts_in_line, rewrap
from mi_ref.params.params import LayerParams, Linear, MLPParams

TEXT = (
    "The capital of France is Paris. People who live in Italy speak Italian,"
    " and the capital of the country is Rome; in Spain they pay with the euro. "
)


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas", dtype="float64")


@pytest.mark.parametrize("width", [1, 7, 20, 33, 500])
def test_lines_are_those_of_the_standard_library(width: int) -> None:
    wanted = textwrap.wrap(
        TEXT, width, break_long_words=False, break_on_hyphens=False, replace_whitespace=True
    )
    assert rewrap(TEXT, width) == "\n".join(wanted)
    assert rewrap(TEXT.replace(" ", "\n\n "), width) == "\n".join(wanted)
    assert rewrap(rewrap(TEXT, 11), width) == "\n".join(wanted)


def test_widths_in_bytes_and_in_characters() -> None:
    text = "äöü äöü äöü"
    assert rewrap(text, 7) == "äöü äöü\näöü"
    assert rewrap(text, 7, unit="bytes") == "äöü\näöü\näöü"
    assert rewrap(text, 13, unit="bytes") == "äöü äöü\näöü"
    with pytest.raises(ShapeError, match="width=0: a line has room for one of its characters"):
        rewrap(text, 0)


@pytest.mark.parametrize("unit", ["characters", "bytes"])
def test_counts_start_anew_after_each_newline(atlas: Model, unit: Any) -> None:
    text = "Genève is\nin €urope, as\n\nBern is"
    encoding = atlas.tokenizer.encode(text)
    counts = counts_in_line(encoding, unit=unit)
    spans = encoding.char_spans if unit == "characters" else encoding.byte_spans
    assert len(counts) == len(encoding.ids)
    whole: Any = text if unit == "characters" else text.encode()
    newline: Any = "\n" if unit == "characters" else b"\n"
    differ = 0
    for span, count in zip(spans, counts, strict=True):
        if span is None:
            assert count is None
            continue
        assert count == len(whole[: span[0]].split(newline)[-1])
        differ += count != len(text[: span[0]].split("\n")[-1])
    assert counts[0] is None
    assert 0 in counts[1:]
    assert (differ > 0) is (unit == "bytes")


def means_by_hand(model: Model, texts: list[str], layer: int, top: int) -> dict[int, Any]:
    rows: dict[int, list[Any]] = {}
    for text in texts:
        encoding = model.tokenizer.encode(text)
        run = model.run(list(encoding.ids), capture=[at.resid_post[layer]])
        for pos, span in enumerate(encoding.char_spans):
            if span is None:
                continue
            count = len(text[: span[0]].split("\n")[-1])
            if 1 <= count <= top:
                rows.setdefault(count, []).append(run[at.resid_post[layer]][0, pos])
    return {count: np.mean(rows[count], axis=0) for count in sorted(rows)}


def test_means_projections_and_cosines_by_hand(atlas: Model) -> None:
    """candle-mi projects means that it does not centre."""
    widths = [20, 30]
    found = character_helix(atlas, TEXT, layer=2, widths=widths, max_count=25)
    wanted = means_by_hand(atlas, [rewrap(TEXT, width) for width in widths], 2, 25)
    assert found.counts == tuple(wanted)
    means = np.stack(list(wanted.values()))
    assert np.allclose(found.means, means, rtol=1e-10, atol=1e-10)
    centred = means - means.mean(axis=0)
    _, sizes, rows = np.linalg.svd(centred, full_matrices=False)
    assert np.allclose(found.shares, sizes[:6] ** 2 / np.sum(sizes**2), rtol=1e-9)
    assert np.allclose(np.abs(found.projections), np.abs(centred @ rows[:6].T), atol=1e-8)
    assert np.allclose(np.mean(found.projections, axis=0), 0.0, atol=1e-9)
    unit = centred / np.linalg.norm(centred, axis=-1, keepdims=True)
    assert np.allclose(found.cosines, unit @ unit.T, atol=1e-10)
    n_tokens = sum(1 for width in widths
                   for n in counts_in_line(atlas.tokenizer.encode(rewrap(TEXT, width)))
                   if n and n <= 25)  # fmt: skip
    assert sum(found.samples) == n_tokens


def without_blocks(model: Model, embed: Any) -> Model:
    """Return a model whose stream is its embedding."""

    def silent(w: LayerParams) -> LayerParams:
        assert isinstance(w.mlp, MLPParams)
        mlp = replace(w.mlp, out=Linear(w.mlp.out.weight * 0, None))
        return replace(w, out=Linear(w.out.weight * 0, None), mlp=mlp)

    layers = tuple(map(silent, model.params.blocks))
    return replace(model, params=replace(model.params, embed=embed, layers=layers))


def test_a_planted_helix_is_found(atlas: Model) -> None:
    """Two turns at frequencies of 40 and 15 characters, and a ramp: five dimensions, no more."""
    words = ["The", "capital", "of", "France", "is", "Paris", "and", "they", "live", "in",
             "Italy", "with", "the", "euro", "Rome"]  # fmt: skip
    line = " ".join(words)
    spans = atlas.tokenizer.encode(line, prepend_bos=False)
    assert len(spans) == len(set(spans.ids)), "each token stands at one place only"
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(atlas.cfg.d_model, 6)))
    embed = np.zeros_like(atlas.params.embed)
    planted = {}
    for token, span in zip(spans.ids, spans.char_spans, strict=True):
        assert span is not None
        c = span[0]
        shape = [3 * np.cos(c / 40 * 2 * np.pi), 3 * np.sin(c / 40 * 2 * np.pi),
                 np.cos(c / 15 * 2 * np.pi), np.sin(c / 15 * 2 * np.pi), c / 40]  # fmt: skip
        planted[c] = np.array(shape)
        embed[token] = basis[:, :5] @ shape + 50 * basis[:, 5]
    model = without_blocks(atlas, embed)
    newline = atlas.to_single_token("\n")
    embed[newline] = 50 * basis[:, 5]
    text = " ".join([line] * 3)
    found = character_helix(model, text, layer=1, widths=[len(line)], max_count=len(line) - 1)
    assert found.counts == tuple(c for c in sorted(planted) if c > 0)
    assert sum(found.shares[:5]) == pytest.approx(1.0, abs=1e-9)
    assert found.shares[5] == pytest.approx(0.0, abs=1e-9)
    shapes = np.stack([planted[c] for c in found.counts])
    shapes = shapes - shapes.mean(axis=0)
    projected = np.asarray(found.projections)[:, :5]
    fit, *_ = np.linalg.lstsq(projected, shapes, rcond=None)
    assert np.allclose(projected @ fit, shapes, atol=1e-8)
    # Not centred, as candle-mi takes them, all cosines are near one.
    raw = np.asarray(found.means)
    raw = raw / np.linalg.norm(raw, axis=-1, keepdims=True)
    assert (raw @ raw.T).min() > 0.98
    assert np.min(found.cosines) < -0.5


def test_only_so_many_tokens_and_several_texts(atlas: Model) -> None:
    whole = character_helix(atlas, [TEXT, TEXT], layer=0, widths=[30], max_count=29)
    once = character_helix(atlas, TEXT, layer=0, widths=[30], max_count=29)
    assert np.allclose(whole.means, once.means)
    assert whole.samples == tuple(2 * n for n in once.samples)
    cut = character_helix(atlas, TEXT, layer=-6, widths=[30], max_count=29, max_tokens=9)
    assert sum(cut.samples) == 8 - sum(
        n == 0 for n in counts_in_line(atlas.tokenizer.encode(rewrap(TEXT, 30)))[:9]
    )
    assert cut.layer == 0


def test_refusals(atlas: Model) -> None:
    with pytest.raises(HookError, match="layer=6: this model's layers are 0 to 5"):
        character_helix(atlas, TEXT, layer=6)
    with pytest.raises(ShapeError, match="tokens at 0 places of a line"):
        character_helix(atlas, "The", layer=0)


def test_table_record_and_pictures(atlas: Model, tmp_path: Path) -> None:
    found = character_helix(atlas, TEXT, layer=2, widths=[20, 30], max_count=25)
    assert str(found).splitlines()[-1].split()[-1] == f"{sum(found.shares):.4f}"
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["texts"] == [TEXT]
    assert record["widths"] == [20, 30]
    assert record["projections"] == [list(row) for row in found.projections]
    assert record["cosines"] == [list(row) for row in found.cosines]
    found.plot(tmp_path / "curves.png")
    found.plot_cosines(tmp_path / "cosines.png")
    for name in ("curves.png", "cosines.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
