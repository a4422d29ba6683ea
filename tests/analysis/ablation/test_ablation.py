"""Ablations compared with edits made by hand; their references, draws and errors."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, Hook, HookError, Model, ShapeError, TokenError, at
from mi_ref.analysis.ablation.parts import Method, What
from mi_ref.analysis.ablation.prompt import ablation
from mi_ref.analysis.measure.metrics import Logit, token
from mi_ref.params.params import Linear

Load = Callable[[str, Backend, str], Model]

PROMPT = "The capital of France is"
IDS = [3, 1, 4, 11, 5]
REFS = [[9, 2, 6, 30, 8], [7, 7, 2, 21, 0]]
METHODS: tuple[Method, ...] = ("zero", "mean", "resample")


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas")


@pytest.fixture(params=["gemma2", "gpt2", "rwkv7"])
def model(request: pytest.FixtureRequest, load: Load) -> Model:
    return load(request.param, mi_ref.get_backend("numpy"), "float64")


def log_probs(logits: Any) -> Any:
    exact = np.asarray(logits, dtype=np.float64)
    exact = exact - exact.max()
    return exact - np.log(np.exp(exact).sum())


def kl(model: Model, run: mi_ref.Run, intact: mi_ref.Run, pos: int = -1) -> float:
    host = model.backend.to_host
    p, q = (log_probs(host(each.logits)[0, pos]) for each in (intact, run))
    return float(np.sum(np.exp(p) * (p - q)))


def test_zero_ablation_by_hand(model: Model) -> None:
    whats: tuple[What, ...] = ("attn", "mlp", "layer")
    sites = {"attn": (at.attn_out,), "mlp": (at.mlp_out,), "layer": (at.attn_out, at.mlp_out)}
    intact = model.run(IDS)
    for what in whats:
        found = ablation(model, IDS, what=what, target=5, other=7, position=3)
        assert [effect.layer for effect in found.effects] == list(range(model.cfg.n_layers))
        for effect in found.effects:
            edits = [(site[effect.layer], lambda x, hook: 0.0 * x) for site in sites[what]]
            run = model.run(IDS, edits=edits)
            assert effect.kl == pytest.approx(kl(model, run, intact, 3), rel=1e-9, abs=1e-15)
            row = model.backend.to_host(run.logits)[0, 3]
            assert effect.logit_difference == pytest.approx(row[5] - row[7], rel=1e-9)
        row = model.backend.to_host(intact.logits)[0, 3]
        assert found.intact == pytest.approx(row[5] - row[7], rel=1e-9)


def test_without_a_layer_the_stream_passes_by(model: Model) -> None:
    effect = ablation(model, IDS, what="layer", layers=[1]).effects[0]
    before = model.run(IDS, stop_at_layer=1)
    run = model.run(before, start_at_layer=2)
    assert effect.kl == pytest.approx(kl(model, run, model.run(IDS)), rel=1e-12)


def test_heads_of_a_recurrent_model_by_hand(load: Load) -> None:
    model = load("rwkv7", mi_ref.get_backend("numpy"), "float64")
    found = ablation(model, IDS, layers=[1], positions=[2], target=3)
    for head, effect in enumerate(found.effects):

        def silence(wkv: Any, hook: Hook, head: int = head) -> Any:
            wkv[:, 2, head] = 0
            return wkv

        edited = model.run(IDS, edits=[(at.rwkv_wkv[1], silence)]).logits_at()
        assert effect.logit_difference == pytest.approx(float(edited[3]), rel=1e-12)
    assert len(found.effects) == model.cfg.n_heads


def test_heads_and_neurons_by_hand(load: Load) -> None:
    model = load("gemma2", mi_ref.get_backend("numpy"), "float64")
    intact = model.run(IDS)

    def silence(x: Any, hook: Hook, place: int, pos: list[int]) -> Any:
        x[:, pos, place] = 0.0

    heads = ablation(model, IDS, positions=[1, -1])
    assert heads.ablated == (1, 4)
    neurons = ablation(model, IDS, what="neuron", layers=[-1], indices=[4, 2], position=2)
    last = model.cfg.n_layers - 1
    assert [(e.layer, e.index) for e in neurons.effects] == [(last, 4), (last, 2)]
    every = [(at.z, heads, [1, 4], -1), (at.post, neurons, list(range(5)), 2)]
    for site, found, places, read in every:
        for effect in found.effects:

            def edit(x: Any, hook: Hook, n: Any = effect.index, pos: Any = places) -> Any:
                return silence(x, hook, n, pos)

            run = model.run(IDS, edits=[(site[effect.layer], edit)])
            assert effect.kl == pytest.approx(kl(model, run, intact, read), rel=1e-9, abs=1e-15)
            assert effect.logit_difference is None
    assert len(heads.effects) == model.cfg.n_layers * model.cfg.n_heads


def test_the_mean_is_over_all_tokens_of_the_reference(model: Model) -> None:
    refs = [[9, 2, 6], [7, 7, 2, 21, 0]]
    found = ablation(model, IDS, what="mlp", method="mean", reference=refs)
    runs = [model.run(ref, capture=[at.mlp_out[:]]) for ref in refs]
    assert found.reference == tuple(map(tuple, refs))
    for effect in found.effects:
        tokens = np.concatenate([run[at.mlp_out[effect.layer]][0] for run in runs])
        value = np.broadcast_to(tokens.mean(axis=0), (1, len(IDS), model.cfg.d_model)).copy()
        run = model.run(IDS, edits=[(at.mlp_out[effect.layer], value)])
        assert effect.kl == pytest.approx(kl(model, run, model.run(IDS)), rel=1e-9)
    assert found.seed is None


def test_resampling_puts_the_drawn_prompts_in(model: Model) -> None:
    found = ablation(
        model, IDS, what="attn", method="resample", reference=REFS, draws=5, seed=3, positions=[2]
    )
    assert set(found.draws) == {0, 1}
    again = ablation(
        model, IDS, what="attn", method="resample", reference=REFS, draws=5, seed=3, positions=[2]
    )
    assert again == found
    for effect in found.effects:
        kls = []
        for draw in found.draws:
            other = model.run(REFS[draw], capture=[at.attn_out[effect.layer]])

            def put(x: Any, hook: Hook, other: Any = other[at.attn_out[effect.layer]]) -> None:
                x[:, 2] = other[:, 2]

            run = model.run(IDS, edits=[(at.attn_out[effect.layer], put)])
            kls.append(kl(model, run, model.run(IDS)))
        assert effect.kl == pytest.approx(np.mean(kls), rel=1e-9)
    assert found.record()["provenance"]["seed"] == 3


def test_the_prompt_itself_as_reference_changes_nothing(model: Model) -> None:
    found = ablation(model, IDS, what="layer", method="resample", reference=[IDS], target=3, rows=1)
    assert [effect.kl for effect in found.effects] == [0.0] * model.cfg.n_layers
    assert {effect.logit_difference for effect in found.effects} == {found.intact}


def test_without_another_token_the_targets_logit_is_followed(model: Model) -> None:
    found = ablation(model, IDS, what="mlp", target=3)
    logits = model.run(IDS, logits="last").logits_at()
    assert found.intact == float(model.backend.to_host(logits)[3])
    for effect in found.effects:
        run = model.run(IDS, edits=[(at.mlp_out[effect.layer], lambda x, hook: 0.0 * x)])
        own = float(model.backend.to_host(run.logits_at())[3])
        assert effect.logit_difference == pytest.approx(own, rel=1e-12)
    metric = Logit(token(model, 3))
    assert metric.record()["metric"] == "logit"
    assert str(metric) == f"logit {model.token_string(3)!r}"


def test_kl_is_not_clamped_where_a_prediction_is_destroyed(load: Load) -> None:
    """candle-mi drops tokens with a probability below 1e-10 in either prediction."""
    plain = load("llama2", mi_ref.get_backend("numpy"), "float64")
    sure = Linear(plain.params.unembed.weight * 100, None)
    model = replace(plain, params=replace(plain.params, unembed=sure))
    intact = model.run(IDS)
    destroyed = 0
    for effect in ablation(model, IDS, what="layer").effects:
        layer = effect.layer
        run = model.run(
            model.run(IDS, stop_at_layer=layer), start_at_layer=min(layer + 1, model.cfg.n_layers)
        )
        p, q = (log_probs(np.asarray(each.logits)[0, -1]) for each in (intact, run))
        kept = (np.exp(p) > 1e-10) & (np.exp(q) > 1e-10)
        clamped = float(np.sum((np.exp(p) * (p - q))[kept]))
        assert effect.kl == pytest.approx(kl(model, run, intact), rel=1e-9)
        destroyed += effect.kl > clamped + 1
    assert destroyed > 0


def test_atlas_needs_its_fourth_mlp_for_the_capital(atlas: Model) -> None:
    references = [f"The capital of {name} is" for name in ("Italy", "Spain", "Peru", "Kenya")]
    found = ablation(atlas, PROMPT, what="mlp", method="mean", reference=references,
                     target=" Paris", other=" Rome")  # fmt: skip
    late = [effect for effect in found.effects if effect.layer >= 3]
    assert found.intact is not None
    assert found.top(1)[0].kl > 0.5
    shifts = {e.layer: (e.logit_difference or 0.0) - found.intact for e in late}
    assert min(shifts, key=shifts.__getitem__) in (4, 5)
    assert shifts[4] < -5


def test_refusals(tiny: Model, atlas: Model, load: Load, as_users_call: None) -> None:
    with pytest.raises(ShapeError, match="mean ablation needs reference=: a sequence of prompts"):
        ablation(tiny, IDS, method="mean")
    with pytest.raises(ShapeError, match="a sequence of prompts"):
        ablation(atlas, PROMPT, method="mean", reference=PROMPT)
    with pytest.raises(ShapeError, match="zero ablation needs no reference prompts"):
        ablation(tiny, IDS, reference=REFS)
    with pytest.raises(ShapeError) as error:
        ablation(atlas, PROMPT, method="resample", reference=["The capital of the moon is"])
    for said in ("6 tokens", "prompt 7", "' France'", "' moon'", "prompts of one length"):
        assert said in str(error.value)
    with pytest.raises(ShapeError, match=r"indices=\[0\]: a layer has one mlp only"):
        ablation(tiny, IDS, what="mlp", indices=[0])
    with pytest.raises(ShapeError, match=r"indices \[99\] of 4"):
        ablation(tiny, IDS, indices=[99])
    with pytest.raises(ShapeError, match=r"layers \[5\] of 2"):
        ablation(tiny, IDS, layers=[5])
    with pytest.raises(ShapeError, match="other=3 is compared with a target"):
        ablation(tiny, IDS, other=3)
    with pytest.raises(TokenError, match="a logit difference needs two tokens"):
        ablation(tiny, IDS, target=3, other=3)
    with pytest.raises(ShapeError, match="rows=0"):
        ablation(tiny, IDS, rows=0)
    with pytest.raises(ShapeError, match="draws=0: at least one"):
        ablation(tiny, IDS, method="resample", reference=REFS, draws=0)
    with pytest.raises(ValueError, match="what='token': expected 'head', 'attn'"):
        ablation(tiny, IDS, what="token")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="method='noise': expected 'zero', 'mean' or 'resample'"):
        ablation(tiny, IDS, method="noise")  # type: ignore[arg-type]
    numpy = mi_ref.get_backend("numpy")
    with pytest.raises(HookError, match="experts"):
        ablation(load("mixtral", numpy, "float64"), IDS, what="neuron")


@pytest.mark.parametrize("method", METHODS)
def test_every_array_library(backend: Backend, load: Load, method: Method) -> None:
    refs = [] if method == "zero" else REFS
    model = load("llama2", backend, "float64")
    found = ablation(model, IDS, method=method, reference=refs, target=3)
    plain = load("llama2", mi_ref.get_backend("numpy"), "float64")
    wanted = ablation(plain, IDS, method=method, reference=refs, target=3)
    for own, other in zip(found.effects, wanted.effects, strict=True):
        assert own.kl == pytest.approx(other.kl, rel=1e-9, abs=1e-15)
        assert own.logit_difference == pytest.approx(other.logit_difference, rel=1e-9)


def test_table_record_and_pictures(atlas: Model, tmp_path: Path) -> None:
    found = ablation(atlas, PROMPT, target=" Paris", other=" Rome", layers=[3, 4])
    lines = str(found.table(4)).splitlines()
    assert len(lines) == 8
    best = found.top(1)[0]
    assert lines[4].split()[:2] == [f"{best.layer}.{best.index}", f"{best.kl:.4f}"]
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["effects"][0] == {
        "layer": 3, "index": 0, "kl": found.effects[0].kl,
        "logit_difference": found.effects[0].logit_difference,
    }  # fmt: skip
    assert record["intact_logit_difference"] == found.intact
    found.plot(tmp_path / "kl.png")
    found.plot(tmp_path / "difference.png", "logit_difference")
    for name in ("kl.png", "difference.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"
    plain = ablation(atlas, PROMPT, what="mlp", layers=[0])
    with pytest.raises(ShapeError, match="no target was followed"):
        plain.plot(tmp_path / "none.png", "logit_difference")
