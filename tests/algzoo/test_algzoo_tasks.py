"""AlgZoo's tasks by their definitions, and scores in counts and bits."""

from __future__ import annotations

import math
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, ShapeError, TokenError
from mi_ref.algzoo import (
    TASKS,
    ClassScore,
    Rnn,
    Surprise,
    ValueScore,
    ablate,
    argmedian,
    load,
    longest_cycle,
    median,
    score,
    second_argmax,
    surprise,
)
from tests.algzoo.test_algzoo import random_rnn

M22, CYCLE = load("second-argmax-h2-n2"), load("longest-cycle-h4-n4")


def recorded_longest_cycle(f: tuple[int, ...]) -> int:
    """Return the largest k for which some x first comes back after k steps, by that definition."""
    best = 0
    for x in range(len(f)):
        at = x
        for k in range(1, len(f) + 1):
            at = f[at]
            if at == x:
                best = max(best, k)
                break
    return best


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_the_longest_cycle_of_every_function(n: int, backend: Backend) -> None:
    functions = list(product(range(n), repeat=n))
    found = longest_cycle(backend.xp.asarray(functions), xp=backend.xp)
    assert backend.to_host(found).tolist() == [recorded_longest_cycle(f) for f in functions]


def test_the_transformer_is_right_about_all_256_functions() -> None:
    task = TASKS["longest_cycle"]
    x = task.draw(CYCLE, 4, 256, seed=0)
    assert x.tolist() == [list(f) for f in product(range(4), repeat=4)]
    found = score(CYCLE, task, x)
    assert isinstance(found, ClassScore)
    assert (found.right, found.count) == (256, 256)
    # A class is a length minus 1: if read as the length itself, no answer is right.
    lengths = np.array([recorded_longest_cycle(f) for f in x.tolist()])
    assert not np.any(CYCLE.logits(x).argmax(axis=1) == lengths)


def test_places_and_medians_by_sorting(backend: Backend) -> None:
    xp = backend.xp
    rows = np.random.default_rng(0).normal(size=(50, 7)).tolist()
    x = xp.asarray(rows)
    second, middle, value = (
        backend.to_host(task(x, xp=xp)).tolist() for task in (second_argmax, argmedian, median)
    )
    assert second == [row.index(sorted(row)[-2]) for row in rows]
    assert value == [sorted(row)[3] for row in rows]
    assert middle == [row.index(sorted(row)[3]) for row in rows]


def test_equal_numbers_are_taken_in_their_order() -> None:
    assert second_argmax(np.array([[5.0, 5.0, 1.0], [1.0, 2.0, 1.0]]), xp=np).tolist() == [1, 0]
    assert argmedian(np.array([[3.0, 3.0, 3.0], [2.0, 1.0, 2.0]]), xp=np).tolist() == [1, 0]


def test_inputs_without_an_answer() -> None:
    with pytest.raises(ShapeError, match=r"1 number\(s\) per input"):
        second_argmax(np.ones((3, 1)), xp=np)
    for task in (argmedian, median):
        with pytest.raises(ShapeError, match="4 numbers per input: none is in the middle"):
            task(np.ones((2, 4)), xp=np)
    for outside in (3, -1):
        with pytest.raises(TokenError, match="functions of 3 numbers lead to 0 to 2"):
            longest_cycle(np.array([[0, 1, outside]]), xp=np)


def test_draws_are_normal_seeded_and_the_same_everywhere(backend: Backend) -> None:
    network = load("second-argmax-h2-n2", backend=backend)
    task = TASKS["second_argmax"]
    x = backend.to_host(task.draw(network, 3, 2000, seed=1))
    assert x.shape == (2000, 3)
    assert np.array_equal(x, task.draw(M22, 3, 2000, seed=1))
    assert not np.array_equal(x, task.draw(M22, 3, 2000, seed=2))
    assert np.abs(x.mean(axis=0)).max() < 0.1
    assert np.abs(x.std(axis=0) - 1.0).max() < 0.1
    assert np.abs(x).max() > 3.0  # candle-mi's are uniform within 3.


def test_functions_are_drawn_where_all_are_too_many() -> None:
    task = TASKS["longest_cycle"]
    assert task.exhaustive(4, 256)
    assert not task.exhaustive(4, 255)
    assert not TASKS["median"].exhaustive(1, 10)
    drawn = task.draw(CYCLE, 4, 255, seed=0)
    assert drawn.shape == (255, 4)
    assert len({tuple(f) for f in drawn.tolist()}) < 255  # candle-mi's are one row repeated.
    assert sorted(set(drawn.reshape(-1).tolist())) == [0, 1, 2, 3]


def test_surprise_by_hand(backend: Backend) -> None:
    """Logits ln 3 and 0 are three to one: 0.415 bits where they are right, 2 where not."""
    xp, weight = backend.xp, math.log(3.0)
    arrays = [[1.0], [[0.0]], [[weight], [0.0]]]
    network = Rnn(*(xp.asarray(a, dtype=xp.float64) for a in arrays), backend=backend)
    task = TASKS["second_argmax"]
    # The last number is 1; the second largest is it, it, and the first.
    x = xp.asarray([[2.0, 1.0], [3.0, 1.0], [0.0, 1.0]], dtype=xp.float64)
    found = score(network, task, x)
    assert isinstance(found, ClassScore)
    assert (found.right, found.count, found.quality) == (1, 3, 1 / 3)
    assert found.surprise == pytest.approx((4.0 + math.log2(4 / 3)) / 3, rel=1e-14)
    bits = surprise(network, task, x)
    assert bits is not None
    assert bits.guessing == 3.0
    assert bits.frequencies == pytest.approx(3 * 0.9182958340544896, rel=1e-14)
    assert bits.network == pytest.approx(4.0 + math.log2(4 / 3), rel=1e-14)
    # Confidently wrong is worse than guessing: no number of labels pays for its weights.
    assert bits.explained == pytest.approx(-1.0 - math.log2(4 / 3), rel=1e-14)
    assert bits.break_even == math.inf


def test_labels_that_pay_for_weights() -> None:
    bits = Surprise(count=100, guessing=200.0, frequencies=190.0, network=50.0, n_weights=6)
    assert (bits.explained, bits.per_weight) == (150.0, 25.0)
    # Each label saves 1.5 bits, and 192 are to be saved.
    assert bits.break_even == 128.0


def test_a_median_is_scored_by_its_variance() -> None:
    task, x = TASKS["median"], np.random.default_rng(0).normal(size=(500, 1))
    identity = Rnn(np.array([1.0, -1.0]), np.zeros((2, 2)), np.array([[1.0, -1.0]]))
    found = score(identity, task, x)
    assert isinstance(found, ValueScore)
    assert (found.error, found.quality) == (0.0, 1.0)
    silent = score(identity, task, x, [0, 1])
    assert isinstance(silent, ValueScore)
    assert silent.error == pytest.approx(float(np.mean(x**2)), rel=1e-12)
    assert silent.variance == pytest.approx(float(np.var(x)), rel=1e-12)
    half = score(identity, task, x, [0])
    wanted = np.mean(np.maximum(x, 0) ** 2) / np.var(x)
    assert half.quality == pytest.approx(1 - float(wanted), rel=1e-12)
    assert surprise(identity, task, x) is None


def test_answers_that_are_not_the_tasks() -> None:
    with pytest.raises(ShapeError, match=r"second_argmax of 3 numbers has 3 answer\(s\).*gives 2"):
        score(M22, TASKS["second_argmax"], np.ones((4, 3)))
    with pytest.raises(ShapeError, match=r"median of 3 numbers has 1 answer\(s\).*gives 2"):
        score(M22, TASKS["median"], np.ones((4, 3)))


def test_ablation_of_m22() -> None:
    task = TASKS["second_argmax"]
    x = task.draw(M22, 2, 20_000, seed=0)
    first, second, both = ablate(M22, task, x)
    assert [cut.parts for cut in (first, second, both)] == [(0,), (1,), (0, 1)]
    assert first.score.quality == pytest.approx(0.853, abs=0.005)
    assert second.score.quality == pytest.approx(0.5, abs=0.01)
    # No weights left: equal logits, of which the first counts, and a surprise of one bit.
    assert isinstance(both.score, ClassScore)
    assert both.score.surprise == pytest.approx(1.0, rel=1e-12)
    assert both.score.right == int(np.sum(x[:, 0] < x[:, 1]))
    assert first.interaction is second.interaction is None
    assert both.interaction == pytest.approx(both.loss - first.loss - second.loss, rel=1e-12)
    assert len(ablate(M22, task, x, pairs=False)) == 2


def test_every_pair_of_many_neurons_once() -> None:
    task, network = TASKS["argmedian"], random_rnn(5, 3)
    x = task.draw(network, 3, 50, seed=0)
    cuts = ablate(network, task, x)
    assert len({cut.parts for cut in cuts}) == len(cuts) == 5 + 10
    assert all(a < b for cut in cuts for a, b in pairwise(cut.parts))
    whole = score(network, task, x)
    for cut in cuts:
        assert cut.loss == pytest.approx(whole.quality - direct(network, x, cut.parts), abs=1e-12)


def direct(network: Rnn, x: Any, parts: tuple[int, ...]) -> float:
    """Return the accuracy of a network whose weights from `parts` are zero."""
    heard = np.array([0.0 if j in parts else 1.0 for j in range(len(network.W_ih))])
    deaf = Rnn(network.W_ih, network.W_hh * heard, network.W_oh * heard)
    return float(np.mean(deaf.logits(x).argmax(axis=1) == argmedian(x, xp=np)))
