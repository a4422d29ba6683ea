"""GGUF files, memory-mapped: one, the shards of a split model, or one that was cut into pieces."""

from __future__ import annotations

import bisect
import mmap
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from mi_ref.checkpoints.gguf.header import Header, MoreNeededError, StoredTensor, read_header
from mi_ref.checkpoints.gguf.types import stored_types
from mi_ref.errors import WeightError
from mi_ref.output.fingerprint import Fingerprint


class Pieces:
    """The bytes of one GGUF file, which may lie in several files one after the other."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        if empty := [str(path) for path in self.paths if path.stat().st_size == 0]:
            raise WeightError(f"{', '.join(empty)} is empty. Fetch it again.")
        self.maps: list[mmap.mmap] = []
        for path in self.paths:
            with path.open("rb") as file:
                self.maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._starts = [0, *accumulate(map(len, self.maps))]

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self._starts[-1]

    def read(self, start: int, stop: int) -> memoryview:
        """Return bytes: a view of the mapped file, or a copy where they lie in two pieces."""
        first = bisect.bisect_right(self._starts, start) - 1
        parts = []
        while start < stop:
            offset = start - self._starts[first]
            count = min(stop, self._starts[first + 1]) - start
            parts.append(memoryview(self.maps[first])[offset : offset + count])
            start, first = start + count, first + 1
        return parts[0] if len(parts) == 1 else memoryview(b"".join(parts))

    def release(self, start: int, stop: int) -> None:
        """Drop the pages of bytes that were decoded, so that memory holds the weights once."""
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        for begin, mapped in zip(self._starts, self.maps, strict=False):
            first = -(-max(start - begin, 0) // mmap.PAGESIZE) * mmap.PAGESIZE
            last = min(stop - begin, len(mapped)) // mmap.PAGESIZE * mmap.PAGESIZE
            if last > first:
                mapped.madvise(mmap.MADV_DONTNEED, first, last - first)


class GgufFile:
    """Metadata and tensors of a model in GGUF.

    Parameters
    ----------
    metadata : mapping
        Keys and values; of a split model, those of its first shard.
    tensors : mapping
        By name: the tensor, and the number of the shard that holds it.
    shards : sequence of Pieces
        The files; empty if only headers are at hand.
    """

    def __init__(
        self,
        metadata: Mapping[str, Any],
        tensors: Mapping[str, tuple[StoredTensor, int]],
        shards: Sequence[Pieces],
    ) -> None:
        self.metadata = metadata
        self._tensors = tensors
        self._shards = tuple(shards)

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """Every tensor by name."""
        return {name: tensor for name, (tensor, _) in self._tensors.items()}

    def read(self, name: str, start: int, stop: int) -> memoryview:
        """Return the bytes from `start` to `stop` of a tensor's data."""
        tensor, shard = self._tensors[name]
        return self._shards[shard].read(tensor.start + start, tensor.start + stop)

    def release(self, name: str, start: int, stop: int) -> None:
        """Say that these bytes of a tensor will not be read again."""
        tensor, shard = self._tensors[name]
        self._shards[shard].release(tensor.start + start, tensor.start + stop)

    def fingerprint(self) -> Fingerprint:
        """Return the fingerprint of all files, in order."""
        return Fingerprint(path for shard in self._shards for path in shard.paths)


def open_gguf(shards: Sequence[Sequence[Path]]) -> GgufFile:
    """Map a model's files and read their headers.

    Parameters
    ----------
    shards : sequence of sequence of Path
        The shards in order, each as the pieces that it was cut into. Usually there is one of both.

    Raises
    ------
    WeightError
        If a file is damaged, or the shards do not belong together.
    """
    pieces = [Pieces(paths) for paths in shards]
    headers = []
    for shard in pieces:
        source = str(shard.paths[0])
        try:
            headers.append(read_header(shard.maps[0], shard.size, stored_types(), source=source))
        except MoreNeededError as error:
            raise WeightError(
                f"the header of {source} goes on in the next piece. Join the pieces first: cat"
                " model.gguf.part* > model.gguf"
            ) from error
    return combine(headers, pieces, [str(shard.paths[0]) for shard in pieces])


def combine(
    headers: Sequence[Header], pieces: Sequence[Pieces], sources: Sequence[str]
) -> GgufFile:
    """Return one model of the headers of its shards, which must say that they are all of it."""
    tensors: dict[str, tuple[StoredTensor, int]] = {}
    for number, (header, source) in enumerate(zip(headers, sources, strict=True)):
        said = header.metadata.get("split.count", 1), header.metadata.get("split.no", 0)
        if said != (len(headers), number) and (said[0], len(headers)) != (0, 1):
            raise WeightError(
                f"{source} says that it is shard {said[1]} (from 0) of {said[0]}; it was read as"
                f" shard {number} of {len(headers)}. Put all shards of one model side by side,"
                " under the names that they were made with."
            )
        for name, tensor in header.tensors.items():
            if name in tensors:
                raise WeightError(
                    f"{name} stands in both {sources[tensors[name][1]]} and {source}."
                )
            tensors[name] = tensor, number
    metadata = headers[0].metadata
    promised = metadata.get("split.tensors.count", len(tensors))
    if promised != len(tensors):
        raise WeightError(
            f"{sources[0]} promises {promised} tensors over all shards; they hold {len(tensors)}."
        )
    return GgufFile(metadata, tensors, pieces)
