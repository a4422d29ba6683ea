"""A backend's operations compared with their definitions, in every memory order."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mi_ref import Backend
from mi_ref.errors import ArgumentError
from mi_ref.ops.ops import ACTIVATIONS as ACTIVATION_NAMES, Op, Ops, standard_ops, visible
from mi_ref.testing import relative_error
from tests.fixtures.op_draws import ACTIVATIONS, ARGUMENTS, OPTIONS, Draw, flags

TOLERANCE = {"float64": 5e-15, "float32": 3e-6}


def host_erf(x: Any) -> Any:
    values = np.asarray(x)
    flat = [math.erf(v) for v in values.reshape(-1).tolist()]
    return strict.asarray(np.array(flat, values.dtype).reshape(values.shape))


DEFINITIONS = standard_ops(strict, host_erf)


def test_every_operation_is_compared() -> None:
    """All except the recurrence, which tests/ops/test_recurrence.py compares."""
    assert {*ARGUMENTS, "recurrence"} == {field.name for field in fields(Ops)}


def test_a_hidden_write_in_the_core_would_be_seen(read_only: Backend) -> None:
    xp = read_only.xp
    x = read_only.from_host(np.ones((2, 3)))
    made = xp.concat([x, x * 2.0 + xp.mean(x, axis=-1, keepdims=True)])
    for array in (x, made, made[0], made.mT, read_only.ops.rms_norm(made, x[0], None, 1e-5)):
        with pytest.raises((AssertionError, ValueError), match=r"writ|read-only"):
            array[...] = 0.0
        with pytest.raises(AssertionError, match="told to write"):
            array += 1.0
        with pytest.raises(AssertionError, match="told to write"):
            np.add(array, 1.0, out=array)


def test_a_hidden_write_in_a_kernel_would_be_seen(guarded: Callable[[Op], Op]) -> None:
    def spoil(first: Any, second: Any, *, overwrite: bool) -> None:
        first[...] = 0.0
        if not overwrite:
            second[...] = 0.0

    x, y = np.ones(3), np.ones(3)
    guarded(spoil)(x, y, overwrite=True)
    assert (x == 0.0).all()
    with pytest.raises(ValueError, match="read-only"):
        guarded(spoil)(x, y, overwrite=False)


def defined(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return the definition's answer, computed in float64."""

    def widen(x: Any) -> Any:
        if not isinstance(x, np.ndarray):
            return x
        return strict.asarray(x.astype(np.float64) if x.dtype.kind == "f" else x, copy=True)

    named = {key: widen(x) for key, x in options.items()}
    return getattr(DEFINITIONS, name)(*map(widen, arguments), **named)


def summed(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> float:
    """Return the norm of the summed terms, to which rounding is relative.

    A sum may be near zero and be the only value: one query that sees one key.
    """
    if name not in ("linear", "unembed", "attention_scores", "mix_values"):
        return 0.0
    sizes = tuple(abs(x) if isinstance(x, np.ndarray) else x for x in arguments)
    # A cap only shrinks the sum.
    uncapped = {key: None if key == "softcap" else value for key, value in options.items()}
    found = np.asarray(defined(name, sizes, uncapped))
    return float(np.linalg.norm(found[np.isfinite(found)]))


def compare(
    tested: Backend, name: str, arguments: tuple[Any, ...], dtype: str, **options: Any
) -> None:
    """Call both, compare, and check that nothing was overwritten that has to stay."""
    before = [x.copy() if isinstance(x, np.ndarray) else x for x in arguments]
    desired = defined(name, arguments, options)
    # Drawn arrays may share memory with themselves; a kernel that may write gets a copy.
    spared = 1 if options.get("overwrite") else 0
    given = [
        tested.from_host(x.copy("K") if n < spared else x) if isinstance(x, np.ndarray) else x
        for n, x in enumerate(arguments)
    ]
    named = {
        key: tested.from_host(x) if isinstance(x, np.ndarray) else x for key, x in options.items()
    }
    found = getattr(tested.ops, name)(*given, **named)
    for x, y in zip(found if isinstance(found, tuple) else [found],
                    desired if isinstance(desired, tuple) else [desired], strict=True):  # fmt: skip
        host, wanted = tested.to_host(x), np.asarray(y)
        assert host.shape == wanted.shape
        if wanted.dtype.kind == "f":
            assert host.dtype == np.dtype(dtype)
            own = float(np.linalg.norm(wanted[np.isfinite(wanted)]))
            rounding = 4 * float(np.finfo(dtype).eps) * summed(name, arguments, options)
            allowed = max(TOLERANCE[dtype], rounding / own if own else 0.0)
            assert relative_error(host, wanted) <= allowed
        else:
            assert np.array_equal(host, wanted)
    for n, (x, old) in enumerate(zip(given, before, strict=True)):
        if n >= spared and isinstance(old, np.ndarray):
            assert np.array_equal(tested.to_host(x), old), f"argument {n} was overwritten"


@pytest.mark.parametrize("seed", range(200))
def test_a_single_score_near_zero_is_as_exact_as_its_terms(seed: int, tested: Backend) -> None:
    rng = np.random.default_rng(seed)
    q, k = 30 * rng.normal(size=(1, 1, 1, 8)), 30 * rng.normal(size=(1, 2, 1, 8))
    # The sum is a ten-thousandth of its terms.
    q[0, 0, 0, 0] = -(q[0, 0, 0, 1:] @ k[0, 1, 0, 1:]) / k[0, 1, 0, 0] * (1 + 1e-4)
    compare(tested, "attention_scores", (q, k), "float64", scale=0.5, softcap=None, window=1,
            starts=None)  # fmt: skip


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ARGUMENTS)
@given(data=st.data())
@settings(max_examples=25, deadline=None)
def test_an_operation_is_its_definition(
    name: str, dtype: str, data: st.DataObject, tested: Backend
) -> None:
    drawn = Draw(data, dtype)
    arguments = ARGUMENTS[name](drawn)
    compare(tested, name, arguments, dtype, **OPTIONS.get(name, flags())(drawn))


@pytest.mark.parametrize("n_pos", [127, 128, 129, 300])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_long_prompts(n_pos: int, dtype: str, tested: Backend) -> None:
    rng = np.random.default_rng(n_pos)
    q, k, v = (rng.normal(size=(2, n_pos, n, 4)).astype(dtype) for n in (4, 2, 2))
    for softcap, window, starts in (
        (None, None, None),
        (1.5, None, None),
        (None, 5, None),
        (None, 130, np.array([0, 126])),
        (1.5, 64, np.array([3, 0])),
    ):
        options = {"scale": 0.5, "softcap": softcap, "window": window, "starts": starts}
        compare(tested, "attention", (q, k, v), dtype, **options)
        compare(tested, "attention_scores", (q, k), dtype, **options)
    dense = rng.normal(size=(2, 4, n_pos, n_pos)).astype(dtype)
    causal = np.where(np.tri(n_pos, dtype=bool), dense, dense.dtype.type(-np.inf))
    # One distant later key is visible all the same: an edit of the scores may do that.
    shown = causal.copy()
    shown[1, 3, 2, -1] = 2.0
    for scores in (causal, dense, shown):
        for overwrite in (False, True):
            compare(tested, "attention_pattern", (scores,), dtype, overwrite=overwrite)
        compare(tested, "mix_values", (np.exp(scores), v), dtype)
    x, weight, bias = (rng.normal(size=s).astype(dtype) for s in ((2, n_pos, 6), (64, 6), (64,)))
    for added in (None, bias):
        compare(tested, "linear", (x, weight, added), dtype)
        compare(tested, "unembed", (x, weight, added), dtype)


def test_what_a_query_sees_of_four_keys(tested: Backend) -> None:
    """The mask in full, for a window of two and a row whose tokens begin at column two."""
    x = tested.from_host(np.ones((2, 4, 1, 2)))
    starts = tested.from_host(np.array([0, 2]))
    options = {"scale": 3.0, "softcap": 2.0, "window": 2, "starts": starts}
    scores = tested.to_host(tested.ops.attention_scores(x, x, **options))
    shown = [["".join("x" if s > 0 else "." for s in row) for row in head] for (head,) in scores]
    assert shown == [["x...", "xx..", ".xx.", "..xx"], ["x...", ".x..", "..x.", "..xx"]]
    # 2 tanh(6 / 2) wherever anything is seen, and minus infinity elsewhere.
    assert set(scores[np.isfinite(scores)].round(14)) == {1.99010950737346}
    assert (scores[~np.isfinite(scores)] == -np.inf).all()


@pytest.mark.parametrize(
    ("window", "starts", "shown"),
    [(None, None, ["xxx....", "xxxx...", "xxxxx.."]),
     (2, None, [".xx....", "..xx...", "...xx.."]),
     (None, 3, ["..x....", "...x...", "...xx.."]),
     (2, 1, [".xx....", "..xx...", "...xx.."])],
)  # fmt: skip
def test_which_keys_are_visible_from_positions_that_start_late(
    window: int | None, starts: int | None, shown: list[str], tested: Backend
) -> None:
    """Queries at positions 2 to 4 of seven keys; counted from elsewhere, they see the same."""
    for shift in (0, 100):
        rows, columns = (tested.from_host(np.arange(*ends) + shift) for ends in ((2, 5), (0, 7)))
        begins = None if starts is None else tested.from_host(np.array([starts + shift]))
        seen = visible(rows, columns, window=window, starts=begins, xp=tested.xp)
        assert seen.shape == ((3, 7) if starts is None else (1, 3, 7))
        host = tested.to_host(seen).reshape(3, 7)
        assert ["".join("x" if each else "." for each in row) for row in host] == shown


@pytest.mark.parametrize("n_pos", [9, 300])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("starts", [None, [0, 4]])
@pytest.mark.parametrize("window", [None, 3, 130])
@pytest.mark.parametrize("library", ["tested", "array-api-strict"])
def test_attention_split_anywhere_is_the_whole(
    library: str,
    window: int | None,
    starts: list[int] | None,
    softcap: float | None,
    n_pos: int,
    tested: Backend,
) -> None:
    """The last queries on the keys of the past and their own give what all give together."""
    own = library == "tested"
    ops, asarray = (tested.ops, tested.from_host) if own else (DEFINITIONS, strict.asarray)
    to_host = tested.to_host if own else np.asarray
    xp = tested.xp if own else strict
    rng = np.random.default_rng(n_pos)
    q, k, v = (asarray(rng.normal(size=(2, n_pos, n, 4))) for n in (4, 2, 2))
    begins = None if starts is None else asarray(np.array(starts))
    options = {"scale": 0.5, "softcap": softcap, "window": window, "starts": begins}
    whole = to_host(ops.attention(q, k, v, **options))
    scores = to_host(ops.attention_scores(q, k, **options))
    for split in range(1, n_pos) if n_pos < 10 else (1, 127, 128, 129, n_pos - 1):
        new = [xp.asarray(x[:, split:, ...], copy=True) for x in (q, k, v)]
        keys, values = (
            xp.concat([past[:, :split, ...], x], axis=1)
            for past, x in zip((k, v), new[1:], strict=True)
        )
        found = to_host(ops.attention(new[0], keys, values, **options))
        assert relative_error(found, whole[:, split:]) < TOLERANCE["float64"]
        part = ops.attention_scores(new[0], keys, **options)
        hidden = np.isneginf(to_host(part))
        assert np.array_equal(hidden, np.isneginf(scores[:, :, split:]))
        error = relative_error(to_host(part)[~hidden], scores[:, :, split:][~hidden])
        assert error < TOLERANCE["float64"]
        pattern = ops.attention_pattern(part)
        mixed = to_host(ops.mix_values(pattern, values))
        assert relative_error(mixed, whole[:, split:]) < TOLERANCE["float64"]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("overwrite", [False, True])
def test_softmax_of_great_and_missing_scores(overwrite: bool, dtype: str, tested: Backend) -> None:
    great = np.array([[1e30, 1e30, -np.inf], [-1e30, -1e30, -1e30], [-np.inf, 3.0, -np.inf]])
    scores = tested.from_host(great.astype(dtype).reshape(1, 1, 3, 3))
    pattern = tested.to_host(tested.ops.softmax(scores, overwrite=overwrite))[0, 0]
    third = 1 / 3
    expected = [[0.5, 0.5, 0.0], [third, third, third], [0.0, 1.0, 0.0]]
    assert pattern.tolist() == [pytest.approx(row, rel=1e-7) for row in expected]


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_far_out(name: str, dtype: str, tested: Backend) -> None:
    x = np.array([[-1e4, -100.0, -0.0, 0.0, 100.0, 1e4]], dtype=dtype)
    ones = tested.from_host(np.ones_like(x))
    for overwrite in (False, True):
        found = tested.ops.gate(tested.from_host(x.copy()), ones, name, overwrite=overwrite)
        expected = [[0.0, 0.0, 0.0, 0.0, 100.0, 1e4]]
        assert tested.to_host(found).tolist() == [pytest.approx(row, abs=1e-30) for row in expected]


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_what_is_not_a_number_stays_none(name: str, tested: Backend) -> None:
    found = tested.to_host(tested.ops.activation(tested.from_host(np.array([[np.nan, 1.0]])), name))
    assert np.isnan(found[0, 0])
    assert np.isfinite(found[0, 1])


def test_activations_by_name(tested: Backend) -> None:
    x = tested.from_host(np.array([[-1.0, 2.0]]))
    for name in ACTIVATION_NAMES:
        assert tested.ops.activation(x, name).shape == (1, 2)
    with pytest.raises(ArgumentError, match="no activation function is named 'swish': expected on"):
        tested.ops.activation(x, "swish")
    with pytest.raises(ArgumentError, match="no activation function is named 'swish'"):
        DEFINITIONS.activation(strict.asarray([1.0]), "swish")


@pytest.mark.parametrize(
    ("name", "at_one"),
    [("silu", 0.7310585786300049), ("gelu", 0.8413447460685429), ("gelu_tanh", 0.8411919906082768),
     ("relu", 1.0)],
)  # fmt: skip
def test_activations_at_one(name: str, at_one: float, tested: Backend) -> None:
    x = tested.from_host(np.array([[1.0, -1.0]]))
    found = tested.to_host(tested.ops.activation(x, name))[0]
    # f(x) - f(-x) = x holds for all four.
    assert found.tolist() == pytest.approx([at_one, at_one - 1.0], rel=1e-14, abs=1e-16)


def test_of_equal_values_the_first_comes_first(tested: Backend) -> None:
    x = tested.from_host(np.array([[1.0, 3.0, 3.0, -np.inf, 3.0, 2.0]]))
    values, places = tested.ops.top_k(x, 5)
    assert tested.to_host(places).tolist() == [[1, 2, 4, 5, 0]]
    assert tested.to_host(values).tolist() == [[3.0, 3.0, 3.0, 2.0, 1.0]]


@pytest.mark.parametrize(("dtype", "units"), [(np.float64, 2.0), (np.float32, 2.0)])
def test_erf_of_numpy(dtype: Any, units: float) -> None:
    from mi_ref_backends.numpy.erf import erf

    x = np.concatenate([np.linspace(-7, 7, 20_001), np.geomspace(1e-30, 1, 2_000)]).astype(dtype)
    exact = np.array([math.erf(v) for v in x.tolist()])
    assert (abs(erf(x) - exact) <= units * np.spacing(abs(exact).astype(dtype))).all()
    assert erf(np.array([0.0, -0.0, np.inf, -np.inf], dtype)).tolist() == [0.0, 0.0, 1.0, -1.0]
