"""Layers in a loop: the algebra of passes, feedback and restarts, by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, TokenError
from mi_ref.analysis.recurrent.depth_loop import Feedback, Mode
from mi_ref.analysis.recurrent.feedback import (
    embedding_direction,
    generate_with_feedback,
    recurrent_feedback,
)

Load = Callable[[str, Backend, str], Model]

IDS = [3, 1, 4, 11, 5]
MODES: tuple[Mode, ...] = ("recurrent", "restart")
PROMPT = "The capital of France is"


@pytest.fixture(params=["llama2", "gemma2", "gpt2", "rwkv6", "rwkv7"])
def model(request: pytest.FixtureRequest, load: Load) -> Model:
    return load(request.param, mi_ref.get_backend("numpy"), "float64")


def logits_of(run: mi_ref.Run) -> Any:
    """Return a run's logits on the host."""
    return run.backend.to_host(run.logits)


def vector(model: Model, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=model.cfg.d_model)


def loops_of(model: Model) -> list[tuple[int, int]]:
    n = model.cfg.n_layers
    return [(0, 1), (1, 2), (n - 1, n), (0, n)]


@pytest.mark.bits
@pytest.mark.parametrize("mode", MODES)
def test_depth_one_is_the_plain_model_bit_for_bit(model: Model, mode: Mode) -> None:
    plain = logits_of(model.run(IDS))
    for loop in loops_of(model):
        feedback = [Feedback(1, vector(model), 3.0)]
        found = recurrent_feedback(model, IDS, loop=loop, depth=1, feedback=feedback, mode=mode)
        assert np.array_equal(logits_of(found.run), plain)
        assert found.passes[0].comparison.kl == 0.0
        assert found.passes[0].change == 0.0


@pytest.mark.bits
@pytest.mark.parametrize("mode", MODES)
def test_depth_two_without_feedback_is_the_loop_applied_twice(model: Model, mode: Mode) -> None:
    for start, stop in loops_of(model):
        once = model.run(IDS, stop_at_layer=stop)
        twice = model.run(once, start_at_layer=start, stop_at_layer=stop)
        wanted = logits_of(model.run(twice, start_at_layer=stop))
        found = recurrent_feedback(model, IDS, loop=(start, stop), depth=2, mode=mode)
        assert np.array_equal(logits_of(found.run), wanted)
        assert found.passes[1].change > 0
        assert found.passes[1].comparison.kl > 0


def by_hand(model: Model, resid: Any, feedback: list[Feedback], like: mi_ref.Run) -> mi_ref.Run:
    resid = resid.copy()
    for each in feedback:
        resid[0, each.position] += each.strength * each.vector
    again = replace(like, resid=resid)
    return model.run(again, start_at_layer=1, stop_at_layer=2)


def test_recurrent_mode_feeds_what_the_loop_put_out(model: Model) -> None:
    feedback = [Feedback(2, vector(model), 0.5), Feedback(-1, vector(model, 1), -2.0)]
    found = recurrent_feedback(model, IDS, loop=(1, 2), depth=3, feedback=feedback)
    entering = model.run(IDS, stop_at_layer=1)
    run = model.run(entering, start_at_layer=1, stop_at_layer=2)
    for _ in range(2):
        run = by_hand(model, run.resid, feedback, entering)
    wanted = logits_of(model.run(run, start_at_layer=2))
    assert np.allclose(logits_of(found.run), wanted, rtol=1e-12, atol=1e-12)
    assert [place for place, _ in found.feedback] == [2, 4]
    lengths = [abs(f.strength) * float(np.linalg.norm(f.vector)) for f in feedback]
    assert [size for _, size in found.feedback] == pytest.approx(lengths)


@pytest.mark.bits
def test_restart_mode_loses_every_pass_but_the_last(model: Model) -> None:
    """candle-mi's recurrence restarts from the saved stream: depth beyond two does nothing."""
    feedback = [Feedback(2, vector(model), 0.5)]
    runs = [
        recurrent_feedback(model, IDS, loop=(1, 2), depth=depth, feedback=feedback, mode="restart")
        for depth in (2, 3, 5)
    ]
    entering = model.run(IDS, stop_at_layer=1)
    run = by_hand(model, entering.resid, feedback, entering)
    wanted = logits_of(model.run(run, start_at_layer=2))
    for found in runs:
        assert np.array_equal(logits_of(found.run), wanted)
    assert [p.change for p in runs[2].passes[2:]] == [0.0, 0.0, 0.0]
    recurrent = recurrent_feedback(model, IDS, loop=(1, 2), depth=3, feedback=feedback)
    assert not np.allclose(logits_of(recurrent.run), wanted, rtol=1e-6)


def test_changes_and_kl_by_hand(model: Model) -> None:
    found = recurrent_feedback(model, IDS, loop=(0, 2), depth=2)
    once = model.run(IDS, stop_at_layer=2)
    twice = model.run(once, start_at_layer=0, stop_at_layer=2)
    old, new = once.resid[0, -1], twice.resid[0, -1]
    wanted = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert found.passes[1].change == pytest.approx(wanted, rel=1e-12)
    p, q = (logits_of(r)[0, -1] for r in (model.run(IDS), found.run))
    p, q = (x - np.log(np.exp(x).sum()) for x in (p, q))
    assert found.passes[1].comparison.kl == pytest.approx(float(np.exp(p) @ (p - q)), rel=1e-9)
    assert found.passes[1].probability == pytest.approx(float(np.exp(q).max()), rel=1e-12)


def test_generation_without_a_loop_is_greedy(atlas: Model) -> None:
    found = generate_with_feedback(atlas, PROMPT, 4, loop=(1, 3), depth=1)
    text = atlas.to_tokens(PROMPT)[0].tolist()
    for token in found:
        assert token == atlas.run(text).top(1)[0].id
        text.append(token)
    assert atlas.token_string(found[0]) == " Paris"


def test_sustained_feedback_is_added_once_at_the_prompts_last_token(load: Load) -> None:
    """candle-mi adds it twice at the first step, where the last token is its position."""
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    loop = (0, 2)
    changed = 0
    for seed in range(8):
        own = vector(model, seed)
        at_end = [Feedback(-1, own)]
        options: dict[str, Any] = {"loop": loop, "mode": "restart", "feedback": at_end}
        first = generate_with_feedback(model, IDS, 1, sustained=True, **options)
        assert first == generate_with_feedback(model, IDS, 1, sustained=False, **options)
        assert first[0] == recurrent_feedback(model, IDS, **options).run.top(1)[0].id
        twice = [Feedback(-1, own), Feedback(-1, own)]
        doubled = recurrent_feedback(model, IDS, loop=loop, mode="restart", feedback=twice)
        changed += doubled.run.top(1)[0].id != first[0]
    assert changed > 0


def test_sustained_feedback_follows_the_last_token(load: Load) -> None:
    model = load("llama2", mi_ref.get_backend("numpy"), "float64")
    own = vector(model)
    found = generate_with_feedback(
        model, IDS, 2, loop=(0, 1), feedback=[Feedback(1, own)], sustained=True
    )
    text = list(IDS)
    for token in found:
        feedback = [Feedback(1, own), Feedback(-1, own)]
        run = recurrent_feedback(model, text, loop=(0, 1), feedback=feedback).run
        assert token == run.top(1)[0].id
        text.append(token)


def test_direction_of_words(atlas: Model) -> None:
    found = embedding_direction(atlas, [" Rome", " Paris"])
    rows = [atlas.W_E[atlas.to_single_token(w)] for w in (" Rome", " Paris")]
    mean = np.mean(rows, axis=0)
    assert np.allclose(found, mean / np.linalg.norm(mean), rtol=1e-5)
    ids = [atlas.to_single_token(w) for w in (" Rome", " Paris")]
    assert np.array_equal(embedding_direction(atlas, ids), found)
    with pytest.raises(TokenError):
        embedding_direction(atlas, [" Rome and Paris"])
    with pytest.raises(TokenError, match="a sequence of texts"):
        embedding_direction(atlas, [])


def test_refusals(tiny: Model, as_users_call: None) -> None:
    with pytest.raises(ShapeError, match="depth=0: the loop runs at least once"):
        recurrent_feedback(tiny, IDS, loop=(0, 1), depth=0)
    for loop in ((1, 1), (0, 9), (-9, 1)):
        with pytest.raises(HookError, match="is not a range of layers"):
            recurrent_feedback(tiny, IDS, loop=loop)
    with pytest.raises(ShapeError, match=r"position \[5\] of 5"):
        recurrent_feedback(tiny, IDS, loop=(0, 1), feedback=[Feedback(5, [0.0] * 24)])
    with pytest.raises(ShapeError, match=r"feedback vector is \(1,\)"):
        recurrent_feedback(tiny, IDS, loop=(0, 1), feedback=[Feedback(0, [0.0])])
    with pytest.raises(ValueError, match="mode='again'"):
        recurrent_feedback(tiny, IDS, loop=(0, 1), mode="again")  # type: ignore[arg-type]


def test_every_array_library(backend: Backend, load: Load) -> None:
    model = load("llama2", backend, "float64")
    plain = load("llama2", mi_ref.get_backend("numpy"), "float64")
    options: dict[str, Any] = {"loop": (0, 2), "depth": 3, "feedback": [Feedback(1, vector(model))]}
    found = logits_of(recurrent_feedback(model, IDS, **options).run)
    wanted = logits_of(recurrent_feedback(plain, IDS, **options).run)
    assert np.allclose(found, wanted, rtol=1e-10, atol=1e-12)


def test_table_record_and_picture(atlas: Model, tmp_path: Path) -> None:
    feedback = [Feedback(-1, embedding_direction(atlas, [" Rome"]), 40.0)]
    found = recurrent_feedback(atlas, PROMPT, loop=(1, 3), depth=3, feedback=feedback)
    lines = str(found).splitlines()
    assert lines[0] == "layers 1 to 2, recurrent"
    assert lines[-1].split()[0] == "3"
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["loop"] == [1, 3]
    assert record["feedback"][0]["position"] == 5
    assert record["feedback"][0]["length"] == pytest.approx(40.0, rel=1e-5)
    assert [p["kl"] for p in record["passes"]] == [p.comparison.kl for p in found.passes]
    assert record["str_tokens"][-1] == " is"
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
