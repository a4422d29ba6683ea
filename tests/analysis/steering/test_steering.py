"""Steering vectors, their doses and their absorption, each compared with plain NumPy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_ref import (
    ArgumentError,
    Backend,
    HookError,
    Model,
    ShapeError,
    TokenError,
    at,
    do,
    get_backend,
)
from mi_ref.analysis.steering.convergence import SteeringConvergence, steering_convergence
from mi_ref.analysis.steering.doses import DoseResponse, dose_response
from mi_ref.analysis.steering.vector import SteeringVector, steering_vector
from tests.fixtures.by_hand import host, log_probs

pytestmark = pytest.mark.usefixtures("as_users_call")

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
POSITIVE, NEGATIVE = [[3, 1, 4, 11], [9, 2, 6]], [[5, 8, 20], [7, 7, 7, 7, 2]]
CASES = ("llama2", "gemma2", "gpt2", "rwkv7")


def kl(p: Any, q: Any) -> float:
    """Return the divergence of two predictions given as logits, every token counted."""
    log_p, log_q = log_probs(p), log_probs(q)
    return float((np.exp(log_p) * (log_p - log_q)).sum())


def cosine(a: Any, b: Any) -> float:
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, load: Any) -> Model:
    model: Model = load(request.param, get_backend("numpy"), "float64")
    return model


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("position", [-1, 1, "mean"])
def test_the_vector_is_the_difference_of_means(
    position: Any, normalise: bool, exact: Model
) -> None:
    point = at.resid_mid[1] if exact.cfg.recurrent else at.z[1]

    def mean(prompts: list[list[int]]) -> Any:
        rows = [host(exact, exact.run([ids], capture=[point])[point])[0] for ids in prompts]
        return np.mean([x.mean(0) if position == "mean" else x[position] for x in rows], axis=0)

    first, second = mean(POSITIVE), mean(NEGATIVE)
    found = steering_vector(
        exact, POSITIVE, NEGATIVE, point, position=position, normalise=normalise
    )
    norm = np.linalg.norm(first - second)
    wanted = (first - second) / (norm if normalise else 1.0)
    np.testing.assert_allclose(host(exact, found.vector), wanted, rtol=1e-12, atol=1e-14)
    lengths = [np.linalg.norm(first), np.linalg.norm(second)]
    np.testing.assert_allclose([found.norm, *found.mean_norms], [norm, *lengths], rtol=1e-12)
    np.testing.assert_allclose(found.cosine, cosine(first.ravel(), second.ravel()), rtol=1e-11)


def test_on_every_array_library(backend: Backend, load: Any) -> None:
    model: Model = load("llama2", backend, "float32")
    vector = steering_vector(model, POSITIVE, NEGATIVE, at.resid_post[0])
    doses = dose_response(model, POSITIVE[0], vector, [1.0])
    assert doses.outcomes[0].kl > 0
    assert steering_convergence(model, [3, 1, 4], [3, 1, 5]).pushes[0].outcome.kl > 0


def test_every_dose_is_what_a_run_with_the_vector_gives(exact: Model) -> None:
    point, prompt, target = at.resid_post[0], [3, 1, 4, 11, 5], 7
    vector = steering_vector(exact, POSITIVE, NEGATIVE, point)
    scales = (-3.0, 0.0, 0.5, 40.0)
    for positions in (None, [-1, 2]):
        found = dose_response(exact, prompt, vector, scales, target=target, positions=positions)
        clean = host(exact, exact.run([prompt]).logits)[0, -1]
        assert found.unsteered == pytest.approx(np.exp(log_probs(clean)[target]), rel=1e-10)
        chosen = [0, 1, 2, 3, 4] if positions is None else positions
        for scale, outcome in zip(scales, found.outcomes, strict=True):

            def edit(x: Any, hook: Any, scale: float = scale, chosen: Any = chosen) -> Any:
                x[:, chosen] += scale * host(exact, vector.vector)
                return x

            steered = host(exact, exact.run([prompt], edits=[(point, edit)]).logits)[0, -1]
            assert outcome.kl == pytest.approx(kl(clean, steered), rel=1e-8, abs=1e-13)
            wanted = np.exp(log_probs(steered)[target])
            assert outcome.probability == pytest.approx(wanted, rel=1e-9)


def test_a_destroyed_prediction_keeps_its_whole_divergence(atlas: Model) -> None:
    """candle-mi drops tokens below 1e-10, which hides most of such a divergence."""
    vector = steering_vector(atlas, [ITALY], [FRANCE], at.resid_post[5])
    found = dose_response(atlas, FRANCE, vector, [4.0], positions=[-1])
    clean = host(atlas, atlas.run(FRANCE).logits)[0, -1]
    steered = atlas.run(FRANCE, edits=[vector.edit(4.0, positions=[-1])])
    p, q = np.exp(log_probs(clean)), np.exp(log_probs(host(atlas, steered.logits)[0, -1]))
    kept = (p > 1e-10) & (q > 1e-10)
    clamped = float((p[kept] * np.log(p[kept] / q[kept])).sum())
    assert found.outcomes[0].kl > clamped + 1
    assert found.outcomes[0].kl == pytest.approx(float((p * np.log(p / q)).sum()), rel=1e-6)


def test_at_the_subject_the_difference_moves_the_capital(atlas: Model) -> None:
    """With strength 1 it is a patch: the stream there becomes the other prompt's stream."""
    vector = steering_vector(atlas, [ITALY], [FRANCE], at.resid_post[1], position=4)
    found = dose_response(atlas, FRANCE, vector, [0.0, 1.0], target=" Rome", positions=[4])
    assert found.unsteered < 1e-5
    assert found.outcomes[0].probability == found.unsteered
    assert found.outcomes[0].kl == 0
    assert found.outcomes[1].probability > 0.9
    late = steering_vector(atlas, [ITALY], [FRANCE], at.resid_post[4], position=4)
    assert dose_response(atlas, FRANCE, late, [1.0], target=" Rome",
                         positions=[4]).outcomes[0].probability < 0.01  # fmt: skip


@pytest.mark.parametrize("position", [-1, 1])
def test_convergence_is_what_pushed_runs_give(position: int, exact: Model) -> None:
    prompt, contrast, target = [3, 1, 4, 11], [3, 9, 4, 2], 5
    found = steering_convergence(
        exact, prompt, contrast, target=target, position=position, strengths=[2.0], layer=0,
        threshold=0.9,
    )  # fmt: skip
    points = [at.resid_post[n] for n in range(exact.cfg.n_layers)]
    clean, other = (exact.run([ids], capture=points) for ids in (prompt, contrast))
    for push in (*found.pushes, *found.sweep):
        point = points[push.layer]
        delta = host(exact, clean[point])[0, position] - host(exact, other[point])[0, position]
        edit = do.add(push.strength * delta, positions=[position])
        run = exact.run([prompt], capture=points, edits=[(point, edit)])
        cosines = [cosine(host(exact, run[p])[0, -1], host(exact, clean[p])[0, -1]) for p in points]
        np.testing.assert_allclose(push.cosines, cosines, rtol=1e-10)
        logits = [host(exact, r.logits)[0, -1] for r in (clean, run)]
        assert push.outcome.kl == pytest.approx(kl(*logits), rel=1e-8, abs=1e-13)
        assert push.outcome.probability == pytest.approx(np.exp(log_probs(logits[1])[target]))
        stays = [n for n in range(push.layer + 1, len(points)) if min(cosines[n:]) >= 0.9]
        assert push.absorbed == (stays[0] if stays else None)
    assert [push.layer for push in found.pushes] == list(range(exact.cfg.n_layers))
    assert (found.sweep[0].layer, found.sweep[0].strength) == (0, 2.0)


def test_a_push_that_leaves_again_is_not_absorbed(atlas: Model) -> None:
    """candle-mi takes the first layer above the threshold and ignores later ones."""
    found = steering_convergence(atlas, FRANCE, ITALY, position=4, strengths=[])
    push = found.pushes[0]
    assert max(push.cosines[1:]) >= found.threshold
    assert push.cosines[-1] < found.threshold
    assert push.absorbed is None


def test_atlas_absorbs_early_pushes_and_gives_way_to_strong_ones(atlas: Model) -> None:
    found = steering_convergence(atlas, FRANCE, ITALY, target=" Paris")
    assert [push.absorbed is not None for push in found.pushes] == [True] * 3 + [False] * 3
    assert {push.layer for push in found.sweep} == {2}
    assert [push.absorbed is not None for push in found.sweep] == [True] * 2 + [False] * 4
    falling = [push.outcome.probability for push in found.sweep]
    assert falling == sorted(falling, reverse=True)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((POSITIVE, [], at.z[0]), ShapeError, r"negative=\[\]: it is a sequence of prompts"),
        (("text", NEGATIVE, at.z[0]), ShapeError, r"positive='text': it is a sequence"),
        ((POSITIVE, NEGATIVE, at.pattern[0]), HookError, r"no activation per token"),
        ((POSITIVE, POSITIVE, at.z[0]), ShapeError, r"do not differ at at\.z\[0\]"),
        (([[3]], NEGATIVE, at.z[0], 1), ShapeError, r"position=1: a prompt has 1 tokens"),
        (
            (POSITIVE, NEGATIVE, at.z[0], "first"),
            ArgumentError,
            r"'first': expected a number or 'mean'",
        ),
    ],
)
def test_vectors_that_cannot_be_are_refused(
    arguments: Any, error: Any, message: str, tiny: Model
) -> None:
    first, second, point, *position = arguments
    options = {"position": position[0]} if position else {}
    with pytest.raises(error, match=message):
        steering_vector(tiny, first, second, point, **options)


def test_other_refusals(tiny: Model, atlas: Model) -> None:
    vector = steering_vector(tiny, POSITIVE, NEGATIVE, at.z[0])
    with pytest.raises(ShapeError, match=r"the vector is of .*llama2, not of this model"):
        dose_response(atlas, FRANCE, vector)
    with pytest.raises(ShapeError, match="scales is empty"):
        dose_response(tiny, [3, 1], vector, [])
    with pytest.raises(HookError, match=r"positions \[9\] of 2"):
        dose_response(tiny, [3, 1], vector, positions=[9])
    with pytest.raises(TokenError, match=r"prompt has 6 tokens .*contrast has 7"):
        steering_convergence(atlas, FRANCE, "The capital of the country is")
    with pytest.raises(ShapeError, match=r"threshold=2: a cosine lies between"):
        steering_convergence(atlas, FRANCE, ITALY, threshold=2)


def test_the_unembedding_side_can_be_read_too(tiny: Model) -> None:
    found = steering_vector(tiny, POSITIVE, NEGATIVE, at.unembed_in)
    run = [tiny.run([ids], capture=[at.unembed_in])[at.unembed_in][0, -1] for ids in POSITIVE]
    assert found.mean_norms[0] == pytest.approx(np.linalg.norm(np.mean(run, axis=0)), rel=1e-5)


def saved(result: Any, folder: Path) -> Any:
    result.save(folder / "x.json")
    return json.loads((folder / "x.json").read_text())


def test_they_print_save_and_plot(atlas: Model, tmp_path: Path) -> None:
    vector: SteeringVector = steering_vector(atlas, [ITALY], [FRANCE], at.resid_post[1])
    doses: DoseResponse = dose_response(atlas, FRANCE, vector, [1.0, 2.0], target=" Rome")
    pushes: SteeringConvergence = steering_convergence(atlas, FRANCE, ITALY, strengths=[2.0])
    assert f"{vector.norm:.4f}" in str(vector)
    assert "' Rome' without steering" in str(doses)
    assert f"{doses.outcomes[1].kl:.4f}" in str(doses)
    assert len(str(pushes).splitlines()) == 4 + 6 + 1
    record = saved(vector, tmp_path)
    np.testing.assert_array_equal(record["vector"], vector.vector)
    assert record["str_tokens"][0][4] == " Italy"
    record = saved(doses, tmp_path)
    assert [d["kl"] for d in record["doses"]] == [each.kl for each in doses.outcomes]
    record = saved(pushes, tmp_path)
    assert record["pushes"][3]["cosines"] == list(pushes.pushes[3].cosines)
    assert record["provenance"]["model"] == "atlas"
    for name, result in (("doses", doses), ("pushes", pushes)):
        result.plot(tmp_path / f"{name}.png")
        assert (tmp_path / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
