"""AlgZoo's networks reproduce recorded values, and files without a network are refused."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mi_ref import Backend, BackendError, HubError, ShapeError, TokenError, WeightError
from mi_ref.algzoo import BUNDLED, Attention, Rnn, load
from mi_ref.algzoo.weight_files import _FOLDER

# Recorded by candle-mi from AlgZoo's own float32 runs.
NUMBERS = [
    [-2.466057062149048, 0.36228621006011963],
    [0.3765491247177124, -0.18080879747867584],
    [0.39302995800971985, 0.4327020049095154],
    [-1.36271071434021, 1.3564400672912598],
]
PLACES = [
    [219.21023559570312, -219.1454315185547],
    [-105.96415710449219, 105.74044799804688],
    [8.482705116271973, -8.485223770141602],
    [167.17942810058594, -167.1300048828125],
]
FUNCTIONS = [[2, 2, 2, 0], [0, 1, 1, 2], [2, 2, 1, 3], [3, 1, 1, 1]]
CLASSES = [
    [-1978.6426, -2642.7493, -2050.5789, -2204.7434],
    [234.94742, 101.578674, 150.94449, 32.775028],
    [2229.2759, 2440.2969, 2110.7563, 2041.6063],
    [967.15198, 784.78857, 727.92236, 399.57568],
]
RECORDED = [("second-argmax-h2-n2", NUMBERS, PLACES), ("longest-cycle-h4-n4", FUNCTIONS, CLASSES)]


def random_rnn(neurons: int, answers: int, seed: int = 0, dtype: Any = np.float64) -> Rnn:
    rng = np.random.default_rng(seed)
    shapes = (neurons,), (neurons, neurons), (answers, neurons)
    return Rnn(*(rng.normal(size=shape).astype(dtype) for shape in shapes))


def random_attention(n: int, width: int, layers: int = 2) -> Attention:
    rng = np.random.default_rng(3)

    def draw(*shape: int) -> Any:
        return rng.normal(size=shape)

    into = tuple(draw(3 * width, width) for _ in range(layers))
    out = tuple(draw(width, width) for _ in range(layers))
    return Attention(draw(n, width), draw(n, width), draw(n, width), into, out)


def worst(found: Any, wanted: Any) -> float:
    """Return the largest difference over the largest wanted value."""
    exact = np.asarray(wanted, np.float64)
    return float(np.abs(np.asarray(found, np.float64) - exact).max() / np.abs(exact).max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "inputs", "wanted"), RECORDED, ids=[row[0] for row in RECORDED])
def test_recorded_outputs(
    name: str, inputs: Any, wanted: Any, dtype: str, backend: Backend
) -> None:
    network = load(name, dtype=dtype, backend=backend)
    out = network.logits(inputs)
    assert out.dtype == backend.dtype(dtype)
    # Recorded in float32, so float64 is not closer to them.
    assert worst(backend.to_host(out), wanted) < 1e-6


def test_a_network_whose_numbers_can_be_followed() -> None:
    network = Rnn(np.array([1.0, -1.0]), np.zeros((2, 2)), np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert network.trace([[0.5, -0.3]])[0].tolist() == [[0.5, -0.5], [-0.3, 0.3]]
    assert network.logits([[0.5, -0.3]]).tolist() == [[-0.3, 0.3]]
    assert network.hidden([[0.5, -0.3]]).tolist() == [[0.0, 0.3]]
    assert (network.n_weights, network.n_answers) == (10, 2)
    assert repr(network) == "<Rnn: 2 neurons, 10 weights>"
    assert repr(load("longest-cycle-h4-n4")) == (
        "<Attention longest-cycle-h4-n4: 2 layers, 176 weights>"
    )


def by_steps(network: Rnn, numbers: list[float]) -> tuple[list[Any], Any]:
    """Return what goes into each relu, and the logits of one input, neuron by neuron."""
    neurons = range(len(network.W_ih))
    h, before = [0.0 for _ in neurons], []
    for number in numbers:
        before.append([
            network.W_ih[j] * number + sum(network.W_hh[j, k] * h[k] for k in neurons)
            for j in neurons
        ])  # fmt: skip
        h = [max(value, 0.0) for value in before[-1]]
    return before, [sum(row[j] * h[j] for j in neurons) for row in network.W_oh]


def test_an_rnn_step_by_step() -> None:
    network, x = random_rnn(5, 3), np.random.default_rng(1).normal(size=(7, 4))
    for row, trace, out in zip(x.tolist(), network.trace(x), network.logits(x), strict=True):
        before, logits = by_steps(network, row)
        np.testing.assert_allclose(trace, before, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(out, logits, rtol=1e-12, atol=1e-12)


def by_positions(network: Attention, f: tuple[int, ...]) -> tuple[list[Any], Any]:
    """Return attention and logits of one function, position by position."""
    x = [network.embed[value] + network.pos_embed[pos] for pos, value in enumerate(f)]
    width, patterns = len(x[0]), []
    for maps, out in zip(network.in_proj, network.out_proj, strict=True):
        q, k, v = ([maps[i * width : (i + 1) * width] @ row for row in x] for i in range(3))
        raw = [[np.exp(query @ key / np.sqrt(width)) for key in k] for query in q]
        patterns.append([np.array(row) / sum(row) for row in raw])
        mixed = [sum(a * value for a, value in zip(row, v, strict=True)) for row in patterns[-1]]
        x = [row + out @ mix for row, mix in zip(x, mixed, strict=True)]
    return patterns, network.unembed @ x[-1]


def test_a_transformer_position_by_position() -> None:
    network = random_attention(3, 5)
    functions = list(product(range(3), repeat=3))
    for f, trace, out in zip(
        functions, network.trace(functions), network.logits(functions), strict=True
    ):
        patterns, logits = by_positions(network, f)
        np.testing.assert_allclose(trace, patterns, rtol=1e-10)
        np.testing.assert_allclose(out, logits, rtol=1e-10, atol=1e-10)


def test_a_silent_neuron_is_one_that_nobody_hears() -> None:
    network, x = random_rnn(4, 3), np.random.default_rng(2).normal(size=(9, 5))
    heard = np.array([1.0, 0.0, 1.0, 0.0])
    deaf = Rnn(network.W_ih, network.W_hh * heard, network.W_oh * heard)
    np.testing.assert_allclose(network.logits(x, [1, 3]), deaf.logits(x), rtol=1e-13, atol=1e-13)
    assert np.any(network.logits(x, [1]) != network.logits(x, [1, 3]))
    assert network.hidden(x, [2])[:, 2].tolist() == [0.0] * 9


def test_a_silent_layer_is_one_that_adds_nothing() -> None:
    network, f = random_attention(4, 3), [[0, 1, 2, 3], [3, 3, 1, 0]]
    first, second = network.out_proj
    without = Attention(
        network.embed, network.pos_embed, network.unembed, network.in_proj, (first * 0, second)
    )
    np.testing.assert_allclose(network.logits(f, {0}), without.logits(f), rtol=1e-13)
    assert np.any(network.logits(f) != without.logits(f))


def test_inputs_that_cannot_be_read() -> None:
    rnn, transformer = load("second-argmax-h2-n2"), load("longest-cycle-h4-n4")
    with pytest.raises(ShapeError, match=r"numbers \[input, step\].*not \(2,\)"):
        rnn.logits([1.0, 2.0])
    with pytest.raises(ShapeError, match=r"one or more of each, not \(1, 0\)"):
        rnn.logits([[]])
    with pytest.raises(ShapeError, match=r"silent=\[2, -1\]: this network has neuron 0 to neuron"):
        rnn.logits(NUMBERS, [0, 2, -1])
    with pytest.raises(ShapeError, match=r"whole numbers \[input, 4\], not int64 \(1, 3\)"):
        transformer.logits([[0, 1, 2]])
    with pytest.raises(ShapeError, match=r"not float64 \(1, 4\)"):
        transformer.logits([[0.0, 1.0, 2.0, 3.0]])
    with pytest.raises(TokenError, match="the inputs hold -1 to 4; this transformer reads 0 to 3"):
        transformer.logits([[0, 1, 2, 4], [0, -1, 0, 0]])


@pytest.mark.usefixtures("as_users_call")
def test_arrays_that_make_no_network() -> None:
    two, square = np.ones(2), np.ones((2, 2))
    with pytest.raises(WeightError, match=r"linear\.weight is \(2, 3\), not \[answer 2, neu"):
        Rnn(two, square, np.ones((2, 3)))
    with pytest.raises(WeightError, match=r"W_ih is \(2, 2\); pass one weight per neuron"):
        Rnn(square, square, square)
    with pytest.raises(WeightError, match="of float32 and float64, not all float32 or float64"):
        Rnn(two, square, square.astype(np.float32))
    with pytest.raises(WeightError, match="of int64, not all"):
        Rnn(*(weights.astype(np.int64) for weights in (two, square, square)))
    with pytest.raises(WeightError, match="1 in_proj and 2 out_proj"):
        Attention(square, square, square, (np.ones((6, 2)),), (square, square))
    with pytest.raises(WeightError, match=r"in_proj_weight is \(7, 2\), not \[3 × width 2, width"):
        Attention(square, square, square, (np.ones((7, 2)),), (square,))


@pytest.mark.parametrize("name", sorted(BUNDLED))
def test_bundled_files_say_where_they_are_from(name: str) -> None:
    header = (_FOLDER / f"{name}.safetensors").read_bytes()[8:600].decode("ascii", "replace")
    assert "github.com/alignment-research-center/alg-zoo" in header
    assert "MIT or Apache-2.0" in header
    assert name in (_FOLDER / "README.md").read_text("utf-8")
    network = load(name)
    stored = load_file(_FOLDER / f"{name}.safetensors")
    assert network.weights.keys() == stored.keys()
    assert all(np.array_equal(network.weights[key], stored[key]) for key in stored)


def test_a_file_is_told_by_the_names_in_it(tmp_path: Path) -> None:
    weights = {key: np.asarray(value) for key, value in random_attention(3, 5).weights.items()}
    save_file(weights, tmp_path / "any.safetensors")
    network = load(tmp_path / "any.safetensors")
    assert isinstance(network, Attention)
    assert all(np.array_equal(network.weights[key], weights[key]) for key in weights)
    assert network.source is not None
    assert len(network.source.sha256()) == 64


def test_everything_that_does_not_fit_is_listed(tmp_path: Path) -> None:
    rnn: dict[str, tuple[int, ...]] = {
        "rnn.weight_ih_l0": (3, 1),
        "linear.weight": (2, 4),
        "linear.bias": (2,),
    }
    with pytest.raises(WeightError) as told:
        load(saved(tmp_path, rnn))
    for line in (
        "rnn.weight_hh_l0 is missing: [neuron, neuron] was needed",
        "linear.weight is (2, 4), not [answer 2, neuron 3]",
        "linear.bias (2,) is not used",
    ):
        assert line in str(told.value)
    shapes: dict[str, tuple[int, ...]] = {"embed.weight": (4, 2), "unembed.weight": (4, 2)}
    shapes |= {f"attns.{n}.in_proj_weight": (6, 2) for n in (0, 2, 9)}
    with pytest.raises(WeightError) as told:
        load(saved(tmp_path, shapes))
    for line in (
        "pos_embed.weight is missing",
        "attns.0.out_proj.weight is missing",
        "attns.1.in_proj_weight is missing",
        "attns.9.in_proj_weight (6, 2) is not used",
    ):
        assert line in str(told.value)
    two_inputs = {"rnn.weight_ih_l0": (3, 2), "rnn.weight_hh_l0": (3, 3), "linear.weight": (2, 3)}
    with pytest.raises(WeightError, match=r"weight_ih_l0 is \(3, 2\), not \[neuron 3, 1\]"):
        load(saved(tmp_path, dict(two_inputs)))
    with pytest.raises(WeightError, match=r"such as rnn\.weight_ih_l0 or embed\.weight; its first"):
        load(saved(tmp_path, {"wte.weight": (2, 2)}))


def saved(folder: Path, shapes: dict[str, tuple[int, ...]]) -> Path:
    path = folder / "odd.safetensors"
    save_file({name: np.ones(shape, np.float32) for name, shape in shapes.items()}, path)
    return path


def test_files_that_are_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "two words.pth"
    path.write_bytes(b"pickled")
    with pytest.raises(WeightError, match="is a pickle by its name") as told:
        load(path)
    assert f"weights_only=True), sys.argv[2])\" '{path}' '{path.with_suffix('')}.saf" in str(
        told.value
    )
    with pytest.raises(HubError, match="Did you mean 'second-argmax-h2-n2'"):
        load("second_argmax_h2_n2")
    with pytest.raises(BackendError, match="float16"):
        load("second-argmax-h2-n2", dtype="float16")
    with pytest.raises(BackendError, match="not on device 'cuda'"):
        load("second-argmax-h2-n2", device="cuda")
