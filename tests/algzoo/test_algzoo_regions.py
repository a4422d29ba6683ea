"""The linear regions of AlgZoo's RNNs with their matrices; weights without a scale."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from mi_ref import Backend, ShapeError, WeightError
from mi_ref.algzoo import (
    Region,
    Rnn,
    count_patterns,
    linear_map,
    load,
    patterns,
    probe,
    regions,
    standardise,
)
from tests.algzoo.test_algzoo import random_rnn

EYE, NONE = np.eye(2), np.zeros((2, 2))


def m22() -> Rnn:
    network = load("second-argmax-h2-n2")
    assert isinstance(network, Rnn)
    return network


def circle(degrees: Any) -> Any:
    turn = np.radians(degrees)
    return np.stack([np.cos(turn), np.sin(turn)], axis=1)


def numbers(region: Region) -> list[list[float]]:
    return [list(map(float, row)) for row in region.matrix]


def inside(found: tuple[Region, ...], degrees: float) -> list[Region]:
    return [region for region in found if (degrees - region.start) % 360 < region.width]


def assert_regions_are_the_network(network: Rnn, found: tuple[Region, ...]) -> None:
    """Each direction lies in one region, whose matrix gives the logits."""
    turns = np.random.default_rng(2).uniform(0, 360, size=500)
    x = circle(turns)
    for turn, point, out in zip(turns, x, network.logits(x), strict=True):
        (region,) = inside(found, float(turn))
        matrix = np.array(region.matrix, dtype=np.float64)
        np.testing.assert_allclose(matrix @ point, out, rtol=1e-9, atol=1e-9)
    assert sum(region.width for region in found) == pytest.approx(360.0, rel=1e-12)


def test_m22_has_six_linear_regions() -> None:
    found = regions(m22())
    starts = [region.start for region in found]
    assert starts == pytest.approx([270, 20.91, 48.78, 90, 216.93, 244.38], abs=0.01)
    assert_regions_are_the_network(m22(), found)


@pytest.mark.parametrize("seed", range(5))
def test_the_regions_of_a_random_network(seed: int) -> None:
    network = random_rnn(6, 3, seed)
    found = regions(network)
    assert_regions_are_the_network(network, found)
    # Neighbours differ, or they would be one; a pattern that a sample meets lies in one of them.
    assert all(a.matrix != b.matrix for a, b in zip(found, found[1:] + found[:1], strict=True))
    # Two borders where x0 = 0, and a ray for each neuron of step two on either side.
    assert len(found) <= 2 + 2 * 6


def test_regions_of_networks_known_by_construction() -> None:
    # relu(x1) and relu(-x1): step one has no effect, so two half planes.
    halves = regions(Rnn(np.array([1.0, -1.0]), NONE, EYE))
    assert [(region.start, region.width) for region in halves] == [(0.0, 180.0), (180.0, 180.0)]
    # No output weights, or no input weights: zero everywhere.
    for network in (Rnn(np.array([1.0, -1.0]), EYE, NONE), Rnn(np.zeros(2), EYE, EYE)):
        (whole,) = regions(network)
        assert whole.width == 360.0
        assert numbers(whole) == [[0, 0], [0, 0]]
    # One neuron reads only the other's value: relu(x0), and zero for negative x0.
    relayed = regions(Rnn(np.array([1.0, 0.0]), np.array([[0.0, 0.0], [1.0, 0.0]]), EYE[1:]))
    assert [region.start for region in relayed] == [270.0, 90.0]
    assert list(map(numbers, relayed)) == [[[1, 0]], [[0, 0]]]


def test_no_region_is_too_narrow() -> None:
    # One neuron reads the other with a weight of 1e-12: a sector of 1e-12 radians below 0 degrees.
    faint = np.array([[0.0, 0.0], [1e-12, 0.0]])
    narrow = regions(Rnn(np.array([1.0, 1.0]), faint, EYE))
    assert [round(region.start, 6) % 360 for region in narrow] == [0, 0, 90, 180]
    assert narrow[0].start == pytest.approx(360 - np.degrees(1e-12), abs=1e-13)
    assert narrow[0].width == pytest.approx(np.degrees(1e-12), rel=1e-12)
    assert numbers(narrow[0]) == [[0, 0], [1e-12, 1]]


def test_a_pattern_has_a_map_that_gives_the_logits(backend: Backend) -> None:
    xp = backend.xp
    arrays = random_rnn(4, 3).weights.values()
    w_ih, w_hh, w_oh = (xp.asarray(array.tolist(), dtype=xp.float64) for array in arrays)
    network = Rnn(w_ih[:, 0], w_hh, w_oh, backend=backend)
    x = xp.asarray(np.random.default_rng(1).normal(size=(200, 5)).tolist(), dtype=xp.float64)
    met = patterns(network, x)
    maps = linear_map(network, met)
    assert tuple(maps.shape) == (200, 3, 5)
    predicted, out = (backend.to_host(a) for a in (maps @ x[:, :, None], network.logits(x)))
    np.testing.assert_allclose(predicted[..., 0], out, rtol=1e-12, atol=1e-12)
    one = backend.to_host(linear_map(network, met[7, :, :]))
    np.testing.assert_allclose(one, backend.to_host(maps)[7], rtol=1e-14)
    assert len({row.tobytes() for row in backend.to_host(maps)}) > 50


def test_a_map_is_the_sum_over_open_paths() -> None:
    network, on = m22(), ((True, False), (True, True))
    w_ih, w_hh, w_oh = network.W_ih, network.W_hh, network.W_oh
    # From the first number, neuron 0's value; from the second, what both neurons read.
    wanted = np.stack([w_oh @ (w_hh[:, 0] * w_ih[0]), w_oh @ w_ih], axis=1)
    np.testing.assert_allclose(linear_map(network, on), wanted, rtol=1e-14)
    with pytest.raises(ShapeError, match=r"\[step, 2 neurons\].*not \(1, 3\)"):
        linear_map(network, [[True, False, True]])


def test_patterns_are_counted() -> None:
    x = np.random.default_rng(0).normal(size=(4000, 2))
    found = count_patterns(m22(), x)
    assert sum(count for _, count in found.counts) == 4000
    assert [count for _, count in found.counts] == sorted(
        (count for _, count in found.counts), reverse=True
    )
    assert (len(found.counts), found.possible) == (6, 16)
    assert found.gap < 1e-14
    # Each region of the plane has one pattern here, and as many points as its share says.
    shares = sorted(region.width / 360 for region in regions(m22()))
    assert [count / 4000 for _, count in found.counts[::-1]] == pytest.approx(shares, abs=0.03)
    for pattern, count in found.counts:
        own = np.all(m22().trace(x) > 0, axis=(1, 2), where=pattern) & ~np.any(
            m22().trace(x) > 0, axis=(1, 2), where=~np.array(pattern)
        )
        assert own.sum() == count


def test_standardised_weights_are_the_same_function() -> None:
    plain = standardise(Rnn(np.array([2.0, -0.5]), np.array([[1.0, 3.0], [-1.0, 2.0]]), EYE))
    assert plain.W_ih.tolist() == [1.0, -1.0]
    assert plain.W_hh.tolist() == [[1.0, 0.75], [-4.0, 2.0]]
    assert plain.W_oh.tolist() == [[2.0, 0.0], [0.0, 0.5]]
    x = np.random.default_rng(1).normal(size=(1000, 2))
    same = standardise(m22())
    assert same.W_ih.tolist() == [1.0, -1.0]
    np.testing.assert_allclose(same.logits(x), m22().logits(x), rtol=1e-12, atol=1e-10)
    assert same.source is None
    with pytest.raises(WeightError, match="W_ih is 0 at neuron 1, 2"):
        standardise(Rnn(np.array([1.0, 0.0, 0.0]), np.zeros((3, 3)), np.ones((2, 3))))


sizes = st.floats(0.01, 100.0).flatmap(lambda size: st.sampled_from([size, -size]))


@pytest.mark.bits
@given(st.lists(sizes, min_size=1, max_size=5), st.integers(0, 1000), st.integers(1, 5))
def test_a_neurons_scale_does_not_matter(w_ih: list[float], seed: int, steps: int) -> None:
    rng, count = np.random.default_rng(seed), len(w_ih)
    network = Rnn(np.array(w_ih), rng.normal(size=(count, count)), rng.normal(size=(2, count)))
    plain = standardise(network)
    np.testing.assert_allclose(np.abs(plain.W_ih), 1.0, rtol=1e-15)
    x = rng.normal(size=(20, steps))
    out = network.logits(x)
    # Relative to the largest: what is left of two large numbers keeps their rounding.
    assert np.abs(plain.logits(x) - out).max() <= 1e-11 * max(np.abs(out).max(), 1.0)
    # And of the input: twice the numbers are twice the logits, to the last bit.
    assert np.array_equal(network.logits(2 * x), 2 * out)
    assert np.array_equal(patterns(network, 2 * x), patterns(network, x))


def test_roles_of_neurons_made_for_them() -> None:
    w_hh = np.zeros((5, 5))
    w_hh[2, :2] = -1.0, 1.0  # relu(x1 - relu(x0) + relu(-x0)) = relu(x1 - x0)
    w_hh[3, 0] = -1.0  # relu(x1 - relu(x0)): how much x1 raises the maximum above zero
    w_hh[4, 0] = 1.0  # relu(x0), which matches none of the references
    network = Rnn(np.array([1.0, -1.0, 1.0, 1.0, 0.0]), w_hh, np.ones((2, 5)))
    x = np.random.default_rng(0).normal(size=(5000, 2))
    roles = probe(network, x)
    assert [role.name for role in roles] == [
        "recent input", "recent input negated", "x1 - x0", "max increment", "unknown"
    ]  # fmt: skip
    for role in roles[:4]:
        name, value = role.correlations[0]
        assert name == role.name
        assert value == pytest.approx(1.0, rel=1e-12)
    closest = abs(roles[4].correlations[0][1])
    assert 0.3 < closest < 0.8
    assert probe(network, x, clear=closest)[4].name == roles[4].correlations[0][0]


def test_a_constant_neuron_has_no_role() -> None:
    dead = Rnn(np.array([0.0, 1.0]), NONE, EYE)
    first, second = probe(dead, np.random.default_rng(0).normal(size=(200, 3)))
    assert first.name == "constant"
    assert {value for _, value in first.correlations} == {0.0}
    assert second.name == "recent input"
    # One input repeated: the mean of equal numbers is not always that number.
    for role in probe(m22(), [[0.1, 0.3]] * 7):
        assert role.name == "constant"
        assert {value for _, value in role.correlations} == {0.0}


def test_correlations_are_pearsons(backend: Backend) -> None:
    network = load("second-argmax-h2-n2", backend=backend)
    assert isinstance(network, Rnn)
    x = np.random.default_rng(3).normal(size=(300, 2))
    held = m22().hidden(x)

    def relu(v: Any) -> Any:
        return np.maximum(v, 0.0)

    best = relu(relu(x).max(axis=1))
    wanted = {
        "running max": best, "running min": relu(x.min(axis=1)),
        "running min negated": relu(-x.min(axis=1)), "recent input": relu(x[:, 1]),
        "recent input negated": relu(-x[:, 1]), "max increment": best - relu(x[:, 0]),
        "leave-one-out max": best - x[:, 1], "x0 - x1": relu(x[:, 0] - x[:, 1]),
        "x1 - x0": relu(x[:, 1] - x[:, 0]),
    }  # fmt: skip
    for role in probe(network, backend.xp.asarray(x.tolist(), dtype=backend.xp.float64)):
        assert dict(role.correlations).keys() == wanted.keys()
        for name, value in role.correlations:
            exact = np.corrcoef(held[:, role.neuron], wanted[name])[0, 1]
            assert value == pytest.approx(exact, abs=1e-12)
    assert [role.name for role in probe(m22(), x)] == ["x1 - x0", "x0 - x1"]


def test_every_pattern_that_the_plane_has_is_met() -> None:
    """Inputs can meet only those sign patterns of M(2,2) that its regions have."""
    maps = {
        pattern: linear_map(m22(), pattern)
        for pattern in product(product((False, True), repeat=2), repeat=2)
    }
    assert len(maps) == 16
    met = {
        pattern for pattern, _ in count_patterns(m22(), circle(np.arange(0.05, 360, 0.1))).counts
    }
    exact = [np.array(region.matrix, dtype=np.float64) for region in regions(m22())]
    for pattern in met:
        assert any(np.allclose(maps[pattern], matrix, rtol=1e-12) for matrix in exact)
    assert len(met) == len(exact)
