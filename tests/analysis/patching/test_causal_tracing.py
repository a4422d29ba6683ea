"""Causal tracing compared with hand-made runs, its noise, and its findings in the bundled model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, TokenError, at
from mi_ref.analysis.measure.metrics import LogProbability, token
from mi_ref.analysis.patching.noise import embedding_std, noise_draws
from mi_ref.analysis.patching.tracing import CausalTrace, causal_tracing
from mi_ref.hooks.sites import LayerSite

IDS = [5, 17, 3, 39, 22]
FRANCE = "The capital of France is"


@pytest.fixture(scope="module")
def trace(atlas: Model) -> CausalTrace:
    return causal_tracing(atlas, FRANCE, subject="France", draws=6)


@pytest.mark.parametrize(
    ("case", "site", "window"),
    [
        ("llama2", at.resid_post, 1),
        ("gemma2", at.mlp_out, 2),
        ("gpt2", at.attn_out, 3),
        ("rwkv7", at.resid_post, 1),
    ],
)
def test_every_cell_is_the_run_made_by_hand(
    load: Callable[[str, Backend, str], Model], case: str, site: LayerSite, window: int
) -> None:
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    found = causal_tracing(
        model, IDS, subject=[1, 2], site=site, window=window, target=7, draws=2, seed=4, rows=6,
        positions=[2, -1],
    )  # fmt: skip
    clean, n_layers = model.run(IDS, capture=[site[:]]), model.cfg.n_layers
    noise = noise_draws(model, found.noise_std, 2, 2, 4)
    assert found.clean == pytest.approx(probability(clean, 7), rel=1e-12)

    def corrupted(draw: int, layers: range, pos: int) -> float:
        def disturb(x: Any, hook: Any) -> None:
            x[:, 1:3] += noise[draw]

        def restore(x: Any, hook: Any) -> None:
            x[:, pos] = clean[hook.point][:, pos]

        edits: list[tuple[Any, Any]] = [(at.embed, disturb)]
        edits += [(site[near], restore) for near in layers]
        return probability(model.run(IDS, edits=edits), 7)

    assert found.corrupted == pytest.approx([corrupted(d, range(0), 0) for d in (0, 1)], rel=1e-11)
    for layer in range(n_layers):
        near = {1: range(layer, layer + 1), 2: range(max(0, layer - 1), layer + 1),
                3: range(max(0, layer - 1), min(n_layers, layer + 2))}[window]  # fmt: skip
        for column, pos in enumerate((2, 4)):
            each = [corrupted(draw, near, pos) for draw in (0, 1)]
            assert found.values[layer][column] == pytest.approx(fmean(each), rel=1e-11)
            assert found.spread[layer][column] == pytest.approx(stdev(each), rel=1e-7, abs=1e-12)
            assert found.effects()[layer][column] == found.values[layer][column] - fmean(
                found.corrupted
            )


def probability(run: Any, token_id: int) -> float:
    logits = run.logits_at()
    weights = np.exp(logits - logits.max())
    return float(weights[token_id] / weights.sum())


def test_noise_is_in_units_of_the_embeddings_spread(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    """Gemma scales its embeddings: the noise is on what at.embed has."""
    for case in ("llama2", "gemma2"):
        model = load(case, backend, "float64")
        every = model.run(list(range(model.cfg.d_vocab)), capture=[at.embed], stop_at_layer=0)
        expected = np.std(backend.to_host(every[at.embed]))
        assert embedding_std(model) == pytest.approx(float(expected), rel=1e-12)


def test_noise_is_normal_and_the_same_everywhere(
    backend: Backend, load: Callable[[str, Backend, str], Model]
) -> None:
    model = load("llama2", backend, "float64")
    drawn = np.asarray([backend.to_host(x) for x in noise_draws(model, 2.0, 5, 40, 1)])
    assert drawn.shape == (40, 1, 5, model.cfg.d_model)
    assert np.std(drawn) == pytest.approx(2.0, rel=0.05)
    assert np.mean(drawn) == pytest.approx(0.0, abs=0.1)
    numpy = load("llama2", mi_ref.get_backend("numpy"), "float64")
    assert np.array_equal(drawn, np.asarray(noise_draws(numpy, 2.0, 5, 40, 1)))


@pytest.mark.bits
def test_seeds(tiny: Model) -> None:
    first, again, other = (
        causal_tracing(tiny, IDS, subject=2, draws=2, seed=seed, layers=0) for seed in (0, 0, 1)
    )
    assert first == again
    assert first.corrupted != other.corrupted
    assert causal_tracing(tiny, IDS, subject=2, draws=1, layers=0).spread == ((0.0,) * len(IDS),)


def test_the_subject_restores_early_and_the_last_token_late(trace: CausalTrace) -> None:
    assert trace.subject == (4,)
    assert trace.clean > 0.99
    assert fmean(trace.corrupted) < 0.5
    subject, last = ([line[pos] for line in trace.values] for pos in (4, 5))
    assert min(subject[:3]) > 0.9 > max(subject[3:])
    assert min(last[3:]) > 0.8 > max(last[:3])
    assert all(
        effect == pytest.approx(0, abs=1e-4) for line in trace.effects() for effect in line[:4]
    )


def test_the_subject_in_text_and_another_metric(atlas: Model) -> None:
    metric = LogProbability(token(atlas, " Paris"))
    found = causal_tracing(
        atlas, FRANCE, subject="capital of France", metric=metric, draws=2, layers=[0, -1]
    )
    assert (found.subject, found.layers) == ((2, 3, 4), (0, 5))
    assert found.clean == pytest.approx(np.log(0.9969), abs=1e-4)
    assert found.values[-1][-1] == pytest.approx(found.clean, abs=1e-3)


def test_windows_are_the_papers(atlas: Model) -> None:
    for site, expected in ((at.resid_post, 1), (at.mlp_out, 10), (at.attn_out, 10)):
        found = causal_tracing(atlas, FRANCE, subject=4, site=site, draws=1, layers=0, positions=4)
        assert found.window == expected


def test_table_summary_record_and_plot(trace: CausalTrace, tmp_path: Path) -> None:
    lines = str(trace).splitlines()
    assert lines[0] == "p(' Paris'), at.resid_post restored"
    assert "4 ' France'*" in lines[2]
    assert f"{trace.values[0][4]:.3f}" in lines[4]
    assert trace.summary().endswith(f"{fmean(trace.corrupted):.3f} with it, the mean of 6 draws.")
    record = json.loads(json.dumps(trace.record()))
    assert record["format"] == "mi_ref.causal_trace/1"
    assert record["provenance"]["seed"] == 0
    assert [tuple(line) for line in record["values"]] == list(trace.values)
    assert (record["subject"], record["noise_std"]) == ([4], trace.noise_std)
    trace.plot(tmp_path / "trace.png")
    assert (tmp_path / "trace.png").read_bytes()[:4] == b"\x89PNG"


def test_refusals(atlas: Model) -> None:
    with pytest.raises(TokenError, match="subject='Spain' is not part of the prompt"):
        causal_tracing(atlas, FRANCE, subject="Spain")
    with pytest.raises(TokenError, match="name positions"):
        causal_tracing(atlas, atlas.to_tokens(FRANCE), subject="France")
    with pytest.raises(ShapeError, match=r"subject \[9\] of 6"):
        causal_tracing(atlas, FRANCE, subject=9)
    with pytest.raises(ShapeError, match=r"draws=0, noise=3\.0, window=None: each is above zero"):
        causal_tracing(atlas, FRANCE, subject=4, draws=0)
    with pytest.raises(HookError, match="tracing restores batch pos d_model"):
        causal_tracing(atlas, FRANCE, subject=4, site=at.z)
