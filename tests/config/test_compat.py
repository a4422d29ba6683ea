"""``compat="candle-mi"``: candle-mi's deviations on request, recorded in every result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, ConfigError, at
from mi_ref.analysis import logit_lens
from mi_ref.config.rope import DefaultRope


def load(name: str, repository: Path, compat: str | None = "candle-mi") -> mi_ref.Model:
    return mi_ref.from_pretrained(
        repository / "golden" / "data" / name,
        dtype="float64",
        compat=compat,  # type: ignore[arg-type]
    )


def test_off_unless_asked_for(repository: Path) -> None:
    model = load("llama2", repository, None)
    assert model.cfg.compat is None
    assert model.origin.record()["compat"] is None


def test_recorded_everywhere(repository: Path) -> None:
    model = load("llama2", repository)
    assert model.cfg.compat == model.origin.record()["compat"] == "candle-mi"
    assert "as candle-mi runs it" in repr(model)


@pytest.mark.bits
@pytest.mark.parametrize("name", ["llama3.1-rope", "llama-yarn", "phi3-longrope-long", "phi4-mini"])
def test_rotary_scaling_is_left_out(name: str, repository: Path) -> None:
    right, other = load(name, repository, None), load(name, repository)
    rotary = right.cfg.blocks[0].attn.rotary
    assert rotary is not None
    deviating = other.cfg.blocks[0].attn.rotary
    assert deviating is not None
    assert deviating.rope == DefaultRope(theta=rotary.rope.theta)
    assert deviating.dims == other.cfg.d_head
    tokens = [1, 2, 3, 4, 5]
    a, b = (m.run(tokens, capture=[at.q[0], at.rot_q[0]]) for m in (right, other))
    assert np.array_equal(a[at.q[0]], b[at.q[0]])
    assert not np.allclose(a[at.rot_q[0]], b[at.rot_q[0]])


def test_windows_have_one_key_more(repository: Path) -> None:
    model = load("mistral-window", repository)
    assert [layer.attn.window for layer in model.cfg.blocks] == [4, 4]
    scores = model.run(list(range(8)), capture=[at.attn_scores[0]])[at.attn_scores[0]]
    assert np.isfinite(scores[0, 0]).sum(axis=-1).tolist() == [1, 2, 3, 4, 4, 4, 4, 4]
    gemma = load("gemma2", repository)
    assert [layer.attn.window for layer in gemma.cfg.blocks] == [4, None, 4]


@pytest.mark.parametrize("name", ["phi3-window", "qwen2-window"])
def test_two_families_lose_their_windows(name: str, repository: Path) -> None:
    assert any(layer.attn.window for layer in load(name, repository, None).cfg.blocks)
    assert not any(layer.attn.window for layer in load(name, repository).cfg.blocks)


def test_the_lens_is_without_the_final_cap(repository: Path) -> None:
    model, tokens = load("gemma2", repository), [1, 2, 3, 4]
    cap = model.cfg.softcap
    assert cap is not None
    run = model.run(tokens, capture=[at.resid_post[-1], at.logits])
    assert run.logits is not None
    lens = model.project_to_vocab(run[at.resid_post[-1]])
    np.testing.assert_allclose(lens, run[at.logits], rtol=1e-13)
    np.testing.assert_allclose(run.logits, cap * np.tanh(run[at.logits] / cap), rtol=1e-13)
    uncapped = np.exp(lens[0, -1]) / np.exp(lens[0, -1]).sum()
    top = logit_lens(model, tokens, positions=-1).cells[-1][0].top[0]
    assert top.probability == pytest.approx(uncapped.max(), rel=1e-12)
    right = load("gemma2", repository, None)
    np.testing.assert_allclose(
        right.project_to_vocab(run[at.resid_post[-1]]), run.logits, rtol=1e-13
    )


@pytest.mark.parametrize("name", ["gpt2", "mixtral", "qwen3"])
def test_families_that_it_does_not_run_are_refused(name: str, repository: Path) -> None:
    with pytest.raises(ConfigError, match=r"candle-mi does not run .*only gemma, gemma2"):
        load(name, repository)


@pytest.mark.usefixtures("as_users_call")
def test_another_program_is_refused(repository: Path) -> None:
    with pytest.raises(ArgumentError, match="compat='tl': expected 'candle-mi' or None"):
        load("llama2", repository, "tl")
