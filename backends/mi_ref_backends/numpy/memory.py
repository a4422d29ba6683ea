"""Reuse the memory of large arrays: freed activations serve the next layer or pass.

The system provides new memory page by page, each cleared and mapped on first touch; at 512 tokens
this takes longer than everything but the matrix products. Blocks freed here are kept for arrays of
about the same size, up to an eighth of the machine's memory; `release` frees them.
"""

from __future__ import annotations

import math
import os
from collections import OrderedDict
from typing import Any

import numpy as np
import numpy.typing as npt

NpArray = npt.NDArray[Any]

_SMALL = 1 << 18
"""Below this many bytes, the C library's own allocator reuses freed memory."""


def _budget() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 8
    except (AttributeError, OSError, ValueError):
        return 1 << 30


class _Pool:
    """Freed blocks by size, the least recently used first."""

    def __init__(self, budget: int) -> None:
        self._budget = budget
        self._free: OrderedDict[int, list[NpArray]] = OrderedDict()
        self.held = 0

    def take(self, size: int) -> NpArray:
        """Return memory of `size` bytes: a freed block if there is one."""
        blocks = self._free.get(size)
        try:
            memory = blocks.pop() if blocks else None
        except IndexError:  # Another thread was faster.
            memory = None
        if memory is None:
            return np.empty(size, np.uint8)
        self.held -= size
        return memory

    def give_back(self, memory: NpArray) -> None:
        """Keep memory for later; beyond the budget, drop the least recently used."""
        size = memory.nbytes
        self._free.setdefault(size, []).append(memory)
        self._free.move_to_end(size)
        self.held += size
        while self.held > self._budget and self._free:
            oldest, blocks = next(iter(self._free.items()))
            if blocks:
                blocks.pop()
                self.held -= oldest
            else:
                self._free.pop(oldest, None)

    def clear(self) -> None:
        """Drop everything."""
        self._free.clear()
        self.held = 0


_POOL = _Pool(_budget())


class _Block:
    """The memory of one array and its views; it returns to the pool with the last of them."""

    __slots__ = ("__array_interface__", "_memory", "_pool")

    def __init__(self, size: int) -> None:
        self._pool = _POOL
        self._memory = _POOL.take(size)
        self.__array_interface__ = self._memory.__array_interface__

    def __del__(self) -> None:
        self._pool.give_back(self._memory)


def empty(shape: tuple[int, ...], dtype: Any) -> NpArray:
    """Return an array of arbitrary values, as `numpy.empty` does."""
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    if n_bytes < _SMALL:
        return np.empty(shape, dtype)
    # Eight sizes per doubling, so that prompts of nearly equal length share blocks.
    grain = 1 << (n_bytes.bit_length() - 4)
    block = np.asarray(_Block(-(-n_bytes // grain) * grain))
    array: NpArray = block[:n_bytes].view(dtype).reshape(shape)
    return array


def empty_like(x: NpArray) -> NpArray:
    """Return an array of the shape, dtype and memory order of `x`, without gaps."""
    if x.nbytes < _SMALL:
        return np.empty_like(x)
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    lying = empty(tuple(x.shape[axis] for axis in order), x.dtype)
    return lying.transpose([order.index(axis) for axis in range(x.ndim)])


def release() -> None:
    """Return all memory that is kept for later to the system."""
    _POOL.clear()
