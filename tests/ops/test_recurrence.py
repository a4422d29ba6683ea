"""RWKV's recurrence in chunks and on NumPy, compared with the recurrence token by token."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import array_api_strict as strict
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mi_ref import Backend
from mi_ref.ops import recurrence as recurrence_ops
from mi_ref.ops.recurrence import recurrence
from mi_ref.testing import relative_error
from mi_ref_backends.numpy import recurrence as numpy_recurrence
from tests.fixtures.op_draws import spread

HostArray = np.ndarray[Any, Any]
EXACT = 1e-13
LENGTHS = (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 33, 47, 64, 70)

with_and_without_removal = pytest.mark.parametrize("removes", [False, True], ids=["v6", "v7"])


@dataclass(frozen=True, slots=True)
class Terms:
    """Arguments of one call."""

    r: HostArray
    k: HostArray
    v: HostArray
    decay: HostArray
    removal: tuple[HostArray, HostArray] | None
    state: HostArray

    def arrays(self) -> list[HostArray]:
        return [self.r, self.k, self.v, self.decay, *(self.removal or ()), self.state]

    def mapped(self, change: Callable[[HostArray], Any]) -> tuple[Any, ...]:
        r, k, v, decay, *removal, state = map(change, self.arrays())
        return r, k, v, decay, tuple(removal) or None, state

    def part(self, positions: slice, state: HostArray) -> Terms:
        return replace(Terms(*self.mapped(lambda x: x[:, positions])), state=state)


def draw(
    n_pos: int,
    removes: bool,
    *,
    batch: int = 2,
    heads: int = 2,
    d_key: int = 6,
    d_value: int = 6,
    decay: Callable[[np.random.Generator, tuple[int, ...]], HostArray] | None = None,
) -> Terms:
    """Return random terms; by default with decays, keys and rates like those of models."""
    rng = np.random.default_rng([n_pos, removes, batch, heads, d_key, d_value])
    keys, values = (batch, n_pos, heads, d_key), (batch, n_pos, heads, d_value)
    a = rng.normal(size=keys)
    a /= np.linalg.norm(a, axis=-1, keepdims=True)
    return Terms(
        r=rng.normal(size=keys),
        k=rng.normal(size=keys),
        v=rng.normal(size=values),
        decay=decay(rng, keys) if decay else rng.uniform(0.5, 1.0, keys),
        removal=(a, a * rng.uniform(0.0, 1.0, keys)) if removes else None,
        state=rng.normal(size=(batch, heads, d_key, d_value)),
    )


def token_by_token(terms: Terms) -> tuple[HostArray, HostArray]:
    """Return the reads and the final state, in float64 by the formulas."""
    r, k, v, decay, removal, state = terms.mapped(lambda x: x.astype(np.float64))
    reads = []
    for t in range(k.shape[1]):
        before = state
        state = decay[:, t, :, :, None] * before
        if removal is not None:
            a, b = (x[:, t] for x in removal)
            state = state - np.einsum("bhk,bhj,bhjv->bhkv", b, a, before)
        state = state + np.einsum("bhk,bhv->bhkv", k[:, t], v[:, t])
        seen = before if removal is None else state
        reads.append(np.einsum("bhk,bhkv->bhv", r[:, t], seen))
    return np.stack(reads, axis=1), state


def run(backend: Backend, terms: Terms) -> tuple[HostArray, HostArray]:
    """Return the backend's own answer."""
    read, end = backend.ops.recurrence(*terms.mapped(backend.from_host))
    return backend.to_host(read), backend.to_host(end)


def define(terms: Terms) -> tuple[HostArray, HostArray]:
    """Return the definition's answer."""
    arguments = terms.mapped(lambda x: strict.asarray(x, copy=True))
    read, end = recurrence(*arguments, xp=strict)
    return np.asarray(read), np.asarray(end)


def assert_same(
    found: tuple[HostArray, HostArray], desired: tuple[HostArray, HostArray], rel: float
) -> None:
    for x, y in zip(found, desired, strict=True):
        assert x.shape == y.shape
        assert relative_error(x, y) <= rel


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make many groups of chunks, heads and rows, which otherwise only large arrays have."""
    monkeypatch.setattr(recurrence_ops, "_GROUP", 400)
    monkeypatch.setattr(numpy_recurrence, "_GROUP", 400)
    monkeypatch.setattr(numpy_recurrence, "_ROW", 12)


@with_and_without_removal
@pytest.mark.parametrize("n_pos", LENGTHS)
def test_chunks_give_what_single_tokens_give(n_pos: int, removes: bool, backend: Backend) -> None:
    terms = draw(n_pos, removes)
    assert_same(run(backend, terms), token_by_token(terms), EXACT)


@with_and_without_removal
@pytest.mark.parametrize(("batch", "heads"), [(1, 5), (3, 1), (3, 3)])
@pytest.mark.usefixtures("small_groups")
def test_groups_hand_on_the_state(batch: int, heads: int, removes: bool, backend: Backend) -> None:
    for n_pos in (1, 16, 67, 96):
        terms = draw(n_pos, removes, batch=batch, heads=heads)
        assert_same(run(backend, terms), token_by_token(terms), EXACT)


@with_and_without_removal
@pytest.mark.parametrize(("d_key", "d_value"), [(1, 7), (8, 1), (4, 70), (64, 3)])
def test_keys_and_values_may_differ_in_length(
    d_key: int, d_value: int, removes: bool, backend: Backend
) -> None:
    terms = draw(37, removes, d_key=d_key, d_value=d_value)
    assert_same(run(backend, terms), token_by_token(terms), EXACT)


DECAYS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], HostArray]] = {
    "zero": lambda rng, shape: np.zeros(shape),
    "tiny": lambda rng, shape: np.full(shape, 1e-300),
    "one": lambda rng, shape: np.ones(shape),
    "mixed": lambda rng, shape: rng.choice([0.0, 1e-300, 1e-8, 0.5, 1.0], shape),
    "seldom zero": lambda rng, shape: rng.choice([0.0, 0.9, 1.0], shape, p=[0.05, 0.5, 0.45]),
    "growing": lambda rng, shape: rng.uniform(1.0, 1.3, shape),
    "any": lambda rng, shape: rng.uniform(-1.3, 1.3, shape),
}


@with_and_without_removal
@pytest.mark.parametrize("kind", DECAYS)
def test_any_decay(kind: str, removes: bool, backend: Backend) -> None:
    terms = draw(53, removes, decay=DECAYS[kind])
    desired = token_by_token(terms)
    assert_same(run(backend, terms), desired, EXACT)
    # Where decay is strong, early reads are as large as late ones; where it grows, far smaller.
    found, first = run(backend, terms)[0], slice(0, 20)
    assert relative_error(found[:, first], desired[0][:, first]) <= EXACT


@pytest.mark.bits
def test_of_what_decayed_to_zero_no_bit_is_left(backend: Backend) -> None:
    """Huge numbers before a decay of zero, in the same chunk, are multiplied with zero only."""
    terms = draw(24, False)
    terms.decay[:, 5] = 0.0
    huge = replace(terms, k=terms.k.copy(), v=terms.v.copy(), state=terms.state * 1e250)
    huge.k[:, :5] *= 1e140
    huge.v[:, :5] *= -1e120
    (read, end), (same_read, same_end) = run(backend, huge), run(backend, terms)
    assert np.array_equal(read[:, 6:], same_read[:, 6:])
    assert np.array_equal(end, same_end)
    assert not np.array_equal(read[:, 5], same_read[:, 5])


@pytest.mark.bits
@with_and_without_removal
def test_no_position_sees_a_later_one(removes: bool, backend: Backend) -> None:
    terms = draw(40, removes)
    other = Terms(*terms.mapped(np.copy))
    for x in other.arrays()[:-1]:
        x[:, 21:] = x[:, 21:] * -3.0 + 0.5
    read, changed = run(backend, terms)[0], run(backend, other)[0]
    assert np.array_equal(read[:, :21], changed[:, :21])
    assert not np.array_equal(read[:, 21], changed[:, 21])


@with_and_without_removal
def test_a_prompt_in_two_parts_is_the_whole(removes: bool, backend: Backend) -> None:
    terms = draw(35, removes)
    read, end = run(backend, terms)
    for cut in range(1, 35):
        early, middle = run(backend, terms.part(slice(0, cut), terms.state))
        late, last = run(backend, terms.part(slice(cut, 35), middle))
        assert_same((np.concatenate([early, late], axis=1), last), (read, end), EXACT)


@with_and_without_removal
@pytest.mark.parametrize("n_pos", [1, 16, 70])
def test_float32_stays_float32(n_pos: int, removes: bool, backend: Backend) -> None:
    terms = Terms(*draw(n_pos, removes).mapped(lambda x: x.astype(np.float32)))
    found = run(backend, terms)
    assert [x.dtype for x in found] == [np.float32, np.float32]
    assert_same(found, token_by_token(terms), 5e-6)


def feature_major(x: HostArray) -> HostArray:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, (2, 3), (0, 1))), (0, 1), (2, 3))


ORDERS: tuple[Callable[[HostArray], HostArray], ...] = (
    np.ascontiguousarray,
    np.asfortranarray,
    feature_major,
    spread,
    lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    lambda x: np.broadcast_to(x[:1], x.shape),
    lambda x: np.broadcast_to(x[:, :1], x.shape),
    lambda x: np.broadcast_to(x[..., :1], x.shape),
)


def assert_defined(tested: Backend, terms: Terms) -> None:
    """Compare with the definition, and check that nothing was overwritten.

    A difference is relative to the size of the summed terms, which may almost cancel.
    """
    before = [x.copy() for x in terms.arrays()]
    sizes = Terms(*terms.mapped(np.abs))
    # What is removed is summed too: a drawn removal key is not of length one, so states may grow.
    added = sizes.removal and (sizes.removal[0], -sizes.removal[1])
    addends = token_by_token(replace(sizes, removal=added))
    for x, y, size in zip(run(tested, terms), define(terms), addends, strict=True):
        assert x.shape == y.shape
        assert np.linalg.norm(x - y) <= 1e-14 * np.linalg.norm(size)
    assert all(map(np.array_equal, terms.arrays(), before))


@pytest.mark.parametrize("group", [1, 300, 1 << 16])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_backend_gives_what_the_definition_gives(
    group: int, data: st.DataObject, tested: Backend
) -> None:
    def size(most: int) -> int:
        return data.draw(st.integers(1, most))

    terms = draw(
        size(50), data.draw(st.booleans()),
        batch=size(3), heads=size(3), d_key=size(9), d_value=size(9),
        decay=data.draw(st.sampled_from([None, *DECAYS.values()])),
    )  # fmt: skip
    terms = Terms(*terms.mapped(lambda x: data.draw(st.sampled_from(ORDERS))(x)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numpy_recurrence, "_GROUP", group)
        patch.setattr(numpy_recurrence, "_ROW", size(20))
        assert_defined(tested, terms)


@with_and_without_removal
@pytest.mark.parametrize("n_pos", [1, 40, 150])
def test_unit_vectors_as_values(n_pos: int, removes: bool, tested: Backend) -> None:
    """The call of effective attention: every head and row shares one array of many values."""
    terms = draw(n_pos, removes, heads=3, d_key=8)
    shape = (2, n_pos, 3, n_pos)
    unit = np.broadcast_to(np.eye(n_pos)[None, :, None, :], shape)
    terms = replace(terms, v=unit, state=np.zeros((2, 3, 8, n_pos)))
    assert_defined(tested, terms)
    assert_same(run(tested, terms), token_by_token(terms), EXACT)


@with_and_without_removal
def test_as_wide_as_models_are(removes: bool, tested: Backend) -> None:
    """Several groups of realistic size."""
    terms = draw(150, removes, batch=1, heads=10, d_key=64, d_value=64)
    terms = Terms(*terms.mapped(feature_major))
    assert_same(run(tested, terms), token_by_token(terms), EXACT)
    single = Terms(*terms.mapped(lambda x: feature_major(x.astype(np.float32))))
    assert_same(run(tested, single), token_by_token(single), 5e-6)
