"""Recycled memory is used again once no array refers to it, never before."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import numpy as np
import pytest

import mi_ref
from mi_ref_backends.numpy import memory as numpy_memory
from mi_ref_backends.numpy.memory import empty, empty_like, release

SHAPE = (300, 1000)


@pytest.fixture(autouse=True)
def from_nothing() -> Iterator[None]:
    gc.collect()
    release()
    yield
    release()


def place(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


def test_freed_memory_serves_the_next_array_of_about_that_size() -> None:
    first = empty(SHAPE, np.float32)
    where = place(first)
    del first
    assert place(empty((301, 1000), np.float32)) == where


def test_memory_is_not_used_again_while_a_view_is_alive() -> None:
    first = empty(SHAPE, np.float32)
    view = first[3:5].T[1:]
    where = place(first)
    del first
    assert place(empty(SHAPE, np.float32)) != where
    del view
    assert place(empty(SHAPE, np.float32)) == where


@pytest.mark.bits
def test_what_a_run_captured_survives_every_later_run() -> None:
    model = mi_ref.from_pretrained("atlas")
    prompt = np.arange(100, 220)[None, :]
    run = model.run(prompt, capture=["*"])
    before = {point: array.copy() for point, array in run.cache.items()}
    logits = np.array(run.logits)
    for seed in range(3):
        model.run(np.random.default_rng(seed).integers(0, 2000, (1, 120)), capture=["*"])
    assert np.array_equal(np.array(run.logits), logits)
    for point, array in before.items():
        assert (run[point] == array).all(), point


def test_small_arrays_are_left_to_numpy() -> None:
    empty((10, 10), np.float64)
    assert numpy_memory._POOL.held == 0


def test_no_more_is_kept_than_the_budget() -> None:
    pool = numpy_memory._Pool(budget=1_000_000)
    for size in (300_000, 400_000, 500_000, 600_000):
        pool.give_back(np.empty(size, np.uint8))
        assert pool.held <= 1_000_000
    assert pool.take(600_000).nbytes == 600_000
    assert pool.held == 0
    pool.give_back(np.empty(300_000, np.uint8))
    pool.clear()
    assert pool.held == 0


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0), (2, 1, 0)])
def test_empty_like_keeps_the_memory_order(order: tuple[int, ...]) -> None:
    x = np.zeros((40, 60, 80)).transpose(order)
    other = empty_like(x)
    assert other.shape == x.shape
    assert other.strides == x.strides
    assert other.flags.writeable
