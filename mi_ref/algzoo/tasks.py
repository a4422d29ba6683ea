"""What AlgZoo's networks are trained to answer: the right answers, and inputs to ask about.

Numbers are drawn from the standard normal distribution, as in AlgZoo's training. Equal numbers,
which it never draws, are taken in the order in which they stand.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from typing import Any

from mi_ref._typing import Array, Float, Int, Namespace
from mi_ref.algzoo.networks import Network
from mi_ref.errors import ShapeError, TokenError


def second_argmax(x: Float[Array, "input step"], *, xp: Namespace) -> Int[Array, " input"]:
    """Return where the second largest number stands; of two equal largest, the later one.

    Raises
    ------
    ShapeError
        If there are fewer than two numbers.
    """
    if x.shape[1] < 2:
        raise ShapeError(f"{x.shape[1]} number(s) per input: the second largest is of two or more.")
    return xp.argsort(-x, axis=-1, stable=True)[:, 1]


def argmedian(x: Float[Array, "input step"], *, xp: Namespace) -> Int[Array, " input"]:
    """Return where the middle number stands; among equal ones, that of the middle rank.

    Raises
    ------
    ShapeError
        If the count of numbers is even, so that none is in the middle.
    """
    n = x.shape[1]
    if n % 2 == 0:
        raise ShapeError(f"{n} numbers per input: none is in the middle. Pass an odd count.")
    return xp.argsort(x, axis=-1, stable=True)[:, n // 2]


def median(x: Float[Array, "input step"], *, xp: Namespace) -> Float[Array, " input"]:
    """Return the middle number; see `argmedian`."""
    return xp.take_along_axis(x, argmedian(x, xp=xp)[:, None], axis=-1)[:, 0]


def longest_cycle(f: Int[Array, "input n"], *, xp: Namespace) -> Int[Array, " input"]:
    """Return how many steps the longest cycle of each function has, 1 for a fixed point.

    ``f[:, i]`` is where the function sends i. The way into a cycle does not count: candle-mi counts
    it, which is wrong for 139 of the 256 functions of four numbers.

    Raises
    ------
    TokenError
        If a function leaves the numbers 0 to n - 1.
    """
    n = f.shape[1]
    if bool(xp.any((f < 0) | (f >= n))):
        raise TokenError(f"functions of {n} numbers lead to 0 to {n - 1}; one leads elsewhere.")
    start = xp.broadcast_to(xp.arange(n, dtype=f.dtype, device=f.device), f.shape)
    at, back = f, xp.zeros_like(f)
    for steps in range(1, n + 1):
        back = xp.where((at == start) & (back == 0), steps, back)
        at = xp.take_along_axis(f, at, axis=-1)
    return xp.max(back, axis=-1)


def _cycle_class(f: Int[Array, "input n"], *, xp: Namespace) -> Int[Array, " input"]:
    return longest_cycle(f, xp=xp) - 1


@dataclass(frozen=True, slots=True)
class Task:
    """What a network is asked."""

    name: str
    answer: Callable[..., Array]
    """The answers to inputs ``[input, step]``: a class each, or a number each."""
    classes: bool
    """Whether it is a class, as which the largest logit is read."""
    functions: bool
    """Whether inputs are functions of n numbers, not n numbers."""

    def answers(self, network: Network, x: Array) -> Array:
        """Return the right answers to inputs of a network."""
        return self.answer(x, xp=network.backend.xp)

    def draw(self, network: Network, n: int, samples: int, seed: int) -> Array:
        """Return inputs ``[input, n]``: normal numbers, or functions.

        Where there are no more functions than `samples`, each comes once; else they are drawn, all
        alike, from Python's own generator, so that every array library gets the same.
        """
        xp, device, draw = network.backend.xp, network.backend.device, random.Random(seed)
        rows: list[Any]
        if not self.functions:
            rows = [[draw.gauss(0.0, 1.0) for _ in range(n)] for _ in range(samples)]
            return xp.asarray(rows, dtype=network.dtype, device=device)
        if self.exhaustive(n, samples):
            rows = list(product(range(n), repeat=n))
        else:
            rows = [draw.choices(range(n), k=n) for _ in range(samples)]
        return xp.asarray(rows, dtype=xp.int64, device=device)

    def exhaustive(self, n: int, samples: int) -> bool:
        """Return whether `draw` returns every input that there is."""
        return self.functions and n**n <= samples


TASKS = {
    task.name: task
    for task in (
        Task("second_argmax", second_argmax, classes=True, functions=False),
        Task("argmedian", argmedian, classes=True, functions=False),
        Task("median", median, classes=False, functions=False),
        Task("longest_cycle", _cycle_class, classes=True, functions=True),
    )
}
"""By name. The class of a longest cycle is its steps less 1."""
