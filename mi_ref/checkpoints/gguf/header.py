"""The header of a GGUF file: metadata and where each tensor lies; every size checked before use.

The header is read here rather than through the package ``gguf``, whose reader trusts every length
that a file declares and takes half a minute for a vocabulary of 262,144 tokens.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (file format, versions 2 and 3).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

from mi_ref.errors import WeightError

Buffer: TypeAlias = Any
"""Bytes, or a mapped file: what can be sliced and unpacked from."""

MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q",
            12: "d"}  # fmt: skip
_STRING, _ARRAY = 8, 9
_MAX_DIMS, _MAX_DEPTH = 4, 4
# The least that one takes in the file: an empty name, a type, and a value or an offset.
_LEAST_PAIR, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8


@dataclass(frozen=True, slots=True)
class StoredType:
    """How numbers are stored: `block` of them take `size` bytes."""

    name: str
    block: int
    size: int


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file."""

    name: str
    shape: tuple[int, ...]
    """As arrays have it: the axis that varies fastest last, the reverse of the file's order."""
    type_id: int
    stored: StoredType
    start: int
    """First byte, counted from the start of the file; `stop` is behind the last."""
    stop: int


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says before its tensors' data."""

    metadata: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]


class MoreNeededError(Exception):
    """The buffer ends inside of the header, though the file goes on."""


def read_header(
    buffer: Buffer, size: int, types: Mapping[int, StoredType], *, source: str
) -> Header:
    """Read a header; nothing is allocated that the file does not hold.

    Parameters
    ----------
    buffer : bytes or mmap
        The file, or its beginning.
    size : int
        Bytes of the whole file.
    types : mapping
        The types of storage that can be read, by number.
    source : str
        The file, for messages.

    Raises
    ------
    WeightError
        If it is not a GGUF file, is cut short, or declares impossible sizes.
    MoreNeededError
        If the buffer is a beginning too short to hold the header.
    """
    return _Reader(buffer, size, types, source).header()


class _Reader:
    """A place in the buffer that only moves forward, and never beyond the file's end."""

    def __init__(
        self, buffer: Buffer, size: int, types: Mapping[int, StoredType], source: str
    ) -> None:
        self.buffer, self.size, self.types, self.source = buffer, size, types, source
        self.at = 0

    def refuse(self, why: str) -> WeightError:
        return WeightError(f"{self.source} {why}")

    def reserve(self, count: int, what: str) -> int:
        """Move over `count` bytes, which must be there, and return where they start."""
        start, stop = self.at, self.at + count
        if stop > self.size:
            raise self.refuse(
                f"is cut short or damaged: byte {start} starts {what} of {count:,} bytes, but the"
                f" file has {self.size:,}. Fetch it again."
            )
        if stop > len(self.buffer):
            raise MoreNeededError
        self.at = stop
        return start

    def number(self, code: str, what: str) -> Any:
        layout = "<" + code
        return struct.unpack_from(layout, self.buffer, self.reserve(struct.calcsize(layout), what))[
            0
        ]

    def string(self, what: str) -> str:
        count = self.number("Q", f"the length of {what}")
        start = self.reserve(count, what)
        return self.decode(self.buffer[start : start + count], what)

    def decode(self, raw: bytes, what: str) -> str:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(
                f"is damaged: {what} is not UTF-8 ({error}). Fetch it again."
            ) from error

    def count(self, what: str, least: int) -> int:
        """Read how many entries follow, and check that the rest of the file can hold them."""
        found = int(self.number("Q", f"the number of {what}"))
        if found * least > self.size - self.at:
            raise self.refuse(
                f"is cut short or damaged: it declares {found:,} {what}, which take at least"
                f" {found * least:,} bytes; {self.size - self.at:,} are left. Fetch it again."
            )
        return found

    def header(self) -> Header:
        self.magic()
        version = self.number("I", "the version")
        if version not in _VERSIONS:
            swapped = int.from_bytes(version.to_bytes(4, "little"), "big")
            raise self.refuse(
                f"is a big-endian GGUF file (version {swapped}); expected little-endian, as files"
                " for PCs are. Convert it again without --bigendian."
                if swapped in (1, *_VERSIONS)
                else f"is version {version} of GGUF; expected 2 or 3. Convert the model again with"
                " a llama.cpp of today."
            )
        n_tensors = self.count("tensors", _LEAST_TENSOR)
        n_pairs = self.count("metadata keys", _LEAST_PAIR)
        metadata: dict[str, Any] = {}
        for _ in range(n_pairs):
            key = self.string("a metadata key")
            if key in metadata:
                raise self.refuse(f"is damaged: its metadata has {key!r} twice.")
            metadata[key] = self.value(self.number("I", f"the type of {key}"), key, 0)
        entries = [self.tensor() for _ in range(n_tensors)]
        return Header(metadata, self.placed(entries, self.begin(metadata)))

    def magic(self) -> None:
        found = bytes(self.buffer[: len(MAGIC)])
        if found != MAGIC:
            raise self.refuse(
                f"is not a GGUF file: it starts with {found!r}, expected {MAGIC!r}. Was the"
                " download interrupted, or is it a Git LFS pointer?"
            )
        self.reserve(len(MAGIC), "the magic number")

    def value(self, kind: int, key: str, depth: int) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], key)
        if kind == _STRING:
            return self.string(key)
        if kind != _ARRAY or depth == _MAX_DEPTH:
            raise self.refuse(f"is damaged: {key} is of type {kind}, which GGUF does not have.")
        inner = self.number("I", f"the type of {key}")
        if inner in _SCALARS:
            code = _SCALARS[inner]
            count = self.count(f"values of {key}", struct.calcsize("<" + code))
            layout = f"<{count}{code}"
            start = self.reserve(struct.calcsize(layout), key)
            return list(struct.unpack_from(layout, self.buffer, start))
        if inner == _STRING:
            return self.strings(key)
        count = self.count(f"arrays of {key}", 4 + 8)
        return [self.value(inner, key, depth + 1) for _ in range(count)]

    def strings(self, key: str) -> list[str]:
        """Read an array of strings; a vocabulary has hundreds of thousands."""
        count = self.count(f"strings of {key}", 8)
        buffer, end, at = self.buffer, len(self.buffer), self.at
        length = struct.Struct("<Q").unpack_from
        found: list[bytes] = []
        for _ in range(count):
            stop = at + 8 + length(buffer, at)[0] if at + 8 <= end else end + 1
            if stop > end:
                self.at = at
                self.string(f"a string of {key}")  # says what is wrong
            found.append(buffer[at + 8 : stop])
            at = stop
        self.at = at
        try:
            return [str(raw, "utf-8") for raw in found]
        except UnicodeDecodeError as error:
            raise self.refuse(
                f"is damaged: a string of {key} is not UTF-8 ({error}). Fetch it again."
            ) from error

    def tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        """Read a tensor's name, shape, type and offset."""
        name = self.string("a tensor's name")
        n_dims = self.number("I", f"the number of axes of {name}")
        if not 1 <= n_dims <= _MAX_DIMS:
            raise self.refuse(
                f"is damaged: {name} has {n_dims} axes; expected 1 to {_MAX_DIMS}. Fetch it again."
            )
        shape = tuple(self.number("Q", f"the shape of {name}") for _ in range(n_dims))
        type_id = self.number("I", f"the type of {name}")
        return name, shape[::-1], type_id, self.number("Q", f"the offset of {name}")

    def begin(self, metadata: Mapping[str, Any]) -> int:
        """Return where the tensors' data starts."""
        alignment = metadata.get("general.alignment", 32)
        if type(alignment) is not int or alignment <= 0 or alignment & (alignment - 1):
            raise self.refuse(
                f"is damaged: general.alignment is {alignment!r}; expected a power of two."
            )
        return -(-self.at // alignment) * alignment

    def placed(
        self, entries: list[tuple[str, tuple[int, ...], int, int]], begin: int
    ) -> dict[str, StoredTensor]:
        """Return the tensors with their bytes, which must all be there and not overlap."""
        found: dict[str, StoredTensor] = {}
        for name, shape, type_id, offset in entries:
            if name in found:
                raise self.refuse(f"is damaged: it has the tensor {name} twice.")
            stored = self.types.get(type_id)
            if stored is None:
                raise self.refuse(
                    f"stores {name} as type {type_id}, which the installed package 'gguf' does not"
                    " know. A newer one may: pip install --upgrade gguf"
                )
            if shape[-1] % stored.block or min(shape) < 1:
                raise self.refuse(
                    f"is damaged: {name} is {shape} in {stored.name}, which needs rows of a"
                    f" multiple of {stored.block} numbers."
                )
            start = begin + offset
            count = math.prod(shape) // stored.block * stored.size
            found[name] = StoredTensor(name, shape, type_id, stored, start, start + count)
            if start + count > self.size:
                raise self.refuse(
                    f"is cut short or damaged: {name} {shape} in {stored.name} ends at byte"
                    f" {start + count:,}, but the file has {self.size:,}. Fetch it again."
                )
        inside = sorted(found.values(), key=lambda tensor: tensor.start)
        for earlier, later in pairwise(inside):
            if later.start < earlier.stop:
                raise self.refuse(f"is damaged: {earlier.name} and {later.name} overlap.")
        return found
