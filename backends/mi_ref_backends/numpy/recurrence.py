"""RWKV's recurrence on NumPy: the definition's doubling, in place and in few, long loops.

Chunks are processed in groups that stay in a core's cache. A row holds one position of every head
and chunk of a group: so decays are multiplied into queries and keys in long loops, and the rows of
one head and chunk are still a matrix that BLAS accepts. Reading after the update (RWKV-7) equals
reading before the next position's update: with removal, the readers move on by one position, and
from there on both versions are alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from mi_ref_backends.numpy.memory import NpArray, empty

_Removed = tuple[NpArray, NpArray] | None

_CHUNK = 16
# Elements of one input in a group.
_GROUP = 1 << 16
# Elements of one position in a group, if there are enough heads.
_ROW = 512
# Unused elements after each row: rows a power of two apart would share few cache lines.
_GAP = 16
# Elements allocated at a time: a few large blocks are reused faster than many small ones.
_BLOCK = 1 << 19


def recurrence(
    r: NpArray, k: NpArray, v: NpArray, decay: NpArray, removal: _Removed, state: NpArray
) -> tuple[NpArray, NpArray]:
    """Run group by group: see `mi_ref.ops.recurrence.recurrence`."""
    batch, n_pos, n_heads, _ = k.shape
    if n_pos == 1:
        return _step(r, k, v, decay, removal, state)
    late = 0 if removal is None else 1
    # Feature-major, as other activations.
    read = empty((n_heads, v.shape[-1], batch, n_pos), k.dtype).transpose(2, 3, 0, 1)
    end = np.array(state, order="C")
    room: _Room | None = None
    for (rows, span, heads), sizes in _groups(k.shape, v.shape[-1], 1 + late):
        if room is None or room.sizes != sizes:
            room = _Room(sizes, k.dtype)
        room.fill(room.r, _moved_on(r[rows, :, heads], span, late), 0.0)
        room.fill(room.k, k[rows, span, heads], 0.0)
        room.fill(room.v, v[rows, span, heads], 0.0)
        room.fill(room.decay, decay[rows, span, heads], 1.0)
        if removal is not None:
            room.fill(room.a, removal[0][rows, span, heads], 0.0)
            room.fill(room.b, removal[1][rows, span, heads], 0.0)
        seen = room.run(end[rows, heads])
        # The very first reader belongs to no position.
        first = max(span.start - late, 0)
        own = slice(first + late - span.start, span.stop - span.start)
        read[rows, first : span.stop - late, heads] = seen[:, own]
    if removal is not None:
        read[:, -1] = (r[:, -1, :, None, :] @ end)[:, :, 0, :]
    return read, end


def _step(
    r: NpArray, k: NpArray, v: NpArray, decay: NpArray, removal: _Removed, state: NpArray
) -> tuple[NpArray, NpArray]:
    """Run the recurrence over one position."""
    end = state * decay[:, 0, :, :, None]
    if removal is not None:
        taker, strength = removal
        end -= strength[:, 0, :, :, None] * (taker[:, 0, :, None, :] @ state)
    end += k[:, 0, :, :, None] * v[:, 0, :, None, :]
    read = r[:, 0, :, None, :] @ (state if removal is None else end)
    return read.swapaxes(1, 2), end


class _Sizes(NamedTuple):
    """Lengths of a group's axes."""

    batch: int
    heads: int
    chunks: int
    chunk: int
    kinds: int
    """Kinds of queries and of keys: one, or two with removal, which has its own of both."""
    d_key: int
    d_value: int


def _groups(
    shape: tuple[int, ...], d_value: int, kinds: int
) -> Iterator[tuple[tuple[slice, slice, slice], _Sizes]]:
    """Yield each group's rows of the batch, positions and heads; positions change fastest."""
    batch, n_pos, n_heads, d_key = shape
    chunk = min(_CHUNK, 1 << (n_pos - 1).bit_length())
    heads = min(n_heads, max(_ROW // d_key, 1))
    rows = min(batch, max(_GROUP // (heads * d_key * n_pos), 1))
    span = chunk * max(_GROUP // (rows * heads * max(d_key, d_value) * chunk), 1)
    for row, head, first in product(
        range(0, batch, rows), range(0, n_heads, heads), range(0, n_pos, span)
    ):
        ends = min(row + rows, batch), min(first + span, n_pos), min(head + heads, n_heads)
        chunks = -(-(ends[1] - first) // chunk)
        sizes = _Sizes(ends[0] - row, ends[2] - head, chunks, chunk, kinds, d_key, d_value)
        yield (slice(row, ends[0]), slice(first, ends[1]), slice(head, ends[2])), sizes


def _moved_on(r: NpArray, span: slice, late: int) -> NpArray:
    """Return some positions of `r`, or the one before each; zeros before the first."""
    if span.start >= late:
        return r[:, span.start - late : span.stop - late]
    return np.concatenate((np.zeros_like(r[:, :late]), r[:, : span.stop - late]), axis=1)


class _Level(NamedTuple):
    """Views of each pair of blocks of one width."""

    queries: NpArray
    """Queries of the second block, with the decays since its start."""
    keys: NpArray
    """Keys of the first block, with the decays until its end."""
    first: NpArray
    """The product of all decays of the first block, later of both."""
    second: NpArray
    rows: NpArray
    """The queries as matrices: ``[batch, chunk, pair, kind of key, head, query, d]``."""
    columns: NpArray
    cross: NpArray
    """Where the product of rows and columns goes."""


class _Room:
    """Memory for one group: as given, ``[batch, chunk, pos, head, d]``, and as matrices."""

    def __init__(self, sizes: _Sizes, dtype: Any) -> None:
        self.sizes = sizes
        batch, heads, chunks, chunk, kinds, d_key, d_value = sizes
        size = chunk * kinds
        memory = _Memory(dtype)
        query_rows, queries = memory.rows(sizes, size, d_key)
        key_rows, keys = memory.rows(sizes, size, d_key)
        _, written = memory.rows(sizes, size, d_value)
        decay_rows, self.decay = memory.rows(sizes, chunk, d_key)
        # Queries are ordered by position and then kind; written values and keys by kind first.
        self.a, self.r = queries[:, :, ::kinds], queries[:, :, kinds - 1 :: kinds]
        self.k, self.b, self.v = keys[:, :, :chunk], keys[:, :, chunk:], written[:, :, :chunk]
        seen = memory.array(batch, chunks, heads, size, size)
        seen[...] = 0
        self.levels = list(_levels(sizes, query_rows, key_rows, decay_rows, seen))
        self.readers = _matrices(self.r).mT
        self.keys, self.written = _matrices(keys).mT, _matrices(written)
        self.kept = self.decay[:, :, 0].swapaxes(0, 1)[..., None]
        self.new = memory.array(batch, heads, d_key, d_value)
        self.weights = seen.swapaxes(0, 1)[..., kinds - 1 :: kinds, :].mT
        # Feature-major: [head, d, batch, pos].
        shape = (heads, d_value, batch, chunks, chunk)
        self.reads, self.own = memory.array(*shape), memory.array(*shape)
        self.stage = memory.array(heads, max(d_key, d_value), batch, chunks * chunk + _GAP)
        self.removal = _Removal(self, seen, memory) if kinds > 1 else None

    def fill(self, target: NpArray, x: NpArray, filler: float) -> None:
        """Copy ``[batch, pos, head, d]`` to its place, with `filler` after the last position."""
        batch, n_pos, heads, width = x.shape
        whole, rest = divmod(n_pos, self.sizes.chunk)
        step = max(whole, 1)
        if abs(x.strides[1]) < abs(x.strides[3]):
            # Feature-major columns are too far apart to read across: first copy them closer.
            staged = self.stage[:, :width, :, :n_pos].transpose(2, 3, 0, 1)
            staged[...] = x
            x, step = staged, 1
        cut = x[:, : n_pos - rest].reshape(batch, whole, self.sizes.chunk, heads, width)
        if pieces := [cut[:, chunk : chunk + step] for chunk in range(0, whole, step)]:
            np.concatenate(pieces, axis=1, out=target[:, :whole])
        if rest:
            target[:, whole, :rest] = x[:, n_pos - rest :]
            target[:, whole, rest:] = filler

    def run(self, state: NpArray) -> NpArray:
        """Return what is read, ``[batch, pos, head, d_value]``; update `state` in place."""
        for level in self.levels:
            np.matmul(level.rows, level.columns, out=level.cross)
            np.multiply(level.queries, level.first[:, :, None], out=level.queries)
            np.multiply(level.keys, level.second[:, None, :, None], out=level.keys)
            np.multiply(level.first, level.second, out=level.first)
        if self.removal is not None:
            self.removal.prepare()
        from_state, own = (x.transpose(3, 2, 0, 1, 4) for x in (self.reads, self.own))
        for chunk in range(self.sizes.chunks):
            np.matmul(state.mT, self.readers[chunk], out=from_state[chunk])
            if self.removal is not None:
                self.removal.write(chunk, state)
            state *= self.kept[chunk]
            np.matmul(self.keys[chunk], self.written[chunk], out=self.new)
            state += self.new
        np.matmul(self.written.mT, self.weights, out=own)
        np.add(self.reads, self.own, out=self.reads)
        return self.reads.reshape(*self.reads.shape[:3], -1).transpose(2, 3, 0, 1)


class _Removal:
    """What each chunk of a group removes: ``u = aᵀ S`` at each position, times ``b``.

    ``u = a_k v - a_b u + (decayed a) S``, where `a_k` and `a_b` are what `a` sees of `k` and `b`.
    """

    def __init__(self, room: _Room, seen: NpArray, memory: _Memory) -> None:
        batch, heads, chunks, chunk, kinds, _, d_value = room.sizes
        self._queries = _matrices(room.a)
        self._a_k = seen.swapaxes(0, 1)[..., ::kinds, :chunk]
        self._values, self._removed = room.written[..., :chunk, :], room.written[..., chunk:, :]
        inverse = memory.array(batch, chunks, heads, chunk, chunk)
        inverse[...] = -np.eye(chunk)
        self._inverse = inverse.swapaxes(0, 1)
        self._from_values = memory.array(chunks, batch, heads, chunk, d_value)
        self._u = memory.array(batch, heads, chunk, d_value)
        self._levels = []
        for width in (1 << n for n in range(chunk.bit_length() - 1)):
            blocks, lower = _paired(inverse, width), _paired(seen[..., ::kinds, chunk:], width)
            diagonal = blocks[..., 0, 0, :, :], blocks[..., 1, 1, :, :]
            self._levels.append((*diagonal, blocks[..., 1, 0, :, :], lower[..., 1, 0, :, :]))

    def prepare(self) -> None:
        """Invert ``-(I + a_b)`` by doubling, and compute the part that depends on values alone."""
        for first, second, corner, lower in self._levels:
            if lower.shape[-1] == 1:
                corner[...] = lower
            else:
                np.matmul(second, lower @ first, out=corner)
        np.matmul(self._a_k, self._values, out=self._from_values)

    def write(self, chunk: int, state: NpArray) -> None:
        """Write ``-u`` of one chunk, which starts from `state`."""
        np.matmul(self._queries[chunk], state, out=self._u)
        np.add(self._u, self._from_values[chunk], out=self._u)
        np.matmul(self._inverse[chunk], self._u, out=self._removed[chunk])


class _Memory:
    """New arrays of one dtype, allocated in few blocks."""

    def __init__(self, dtype: Any) -> None:
        self._free: NpArray = np.empty(0, dtype)

    def array(self, *shape: int) -> NpArray:
        """Return an array of arbitrary values."""
        size = math.prod(shape)
        if size > self._free.size:
            self._free = empty((max(size, _BLOCK),), self._free.dtype)
        array, self._free = self._free[:size].reshape(shape), self._free[-(-size // 16) * 16 :]
        return array

    def rows(self, sizes: _Sizes, count: int, width: int) -> tuple[NpArray, NpArray]:
        """Return rows ``[batch, row, …]``, and a view ``[batch, chunk, row, head, width]``."""
        length = sizes.chunks * sizes.heads * width
        rows = self.array(sizes.batch, count, length + _GAP)[..., :length]
        return rows, rows.reshape(*rows.shape[:2], sizes.chunks, -1, width).swapaxes(1, 2)


def _matrices(x: NpArray) -> NpArray:
    """View [batch, chunk, row, head, d] as [chunk, batch, head, row, d]."""
    return x.transpose(1, 0, 3, 2, 4)


def _levels(
    sizes: _Sizes, queries: NpArray, keys: NpArray, decay: NpArray, seen: NpArray
) -> Iterator[_Level]:
    """Yield views of rows and of ``seen[batch, chunk, head, query, key]``, by doubling blocks."""
    batch, heads, chunks, chunk, kinds, d_key, _ = sizes
    for width in (1 << n for n in range(chunk.bit_length() - 1)):
        pairs, several = chunk // (2 * width), width * kinds
        query_rows = queries.reshape(batch, pairs, 2, several, -1)[:, :, 1]
        key_rows = keys.reshape(batch, kinds, pairs, 2, width, -1)[:, :, :, 0]
        rows = query_rows.reshape(batch, pairs, several, chunks, 1, heads, d_key)
        columns = key_rows.reshape(batch, kinds, pairs, width, chunks, heads, d_key)
        blocks = seen.reshape(batch, chunks, heads, pairs, 2, several, kinds, pairs, 2, width)
        decay = decay.reshape(batch, pairs, 2, -1)
        yield _Level(
            # Rows stay one axis: NumPy copies operands first where its loops are short.
            queries=query_rows,
            keys=key_rows,
            first=decay[:, :, 0],
            second=decay[:, :, 1],
            rows=rows.transpose(0, 3, 1, 4, 5, 2, 6),
            columns=columns.transpose(0, 4, 2, 1, 5, 6, 3),
            cross=np.einsum("bchpqkpj->bcpkhqj", blocks[:, :, :, :, 1, :, :, :, 0]),
        )
        decay = decay[:, :, 0]


def _paired(x: NpArray, width: int) -> NpArray:
    """View square matrices as pairs of blocks on the diagonal: [..., pair, 2, 2, row, column]."""
    *lead, size, _ = x.shape
    pairs = size // (2 * width)
    blocks = x.reshape(*lead, pairs, 2, width, pairs, 2, width)
    view: NpArray = np.einsum("...piapjb->...pijab", blocks)
    return view
