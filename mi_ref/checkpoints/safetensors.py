"""The tensors of a safetensors checkpoint, memory-mapped. Knows files and dtypes but no models.

Headers are parsed here rather than with the `safetensors` library, which copies every tensor and
has no bfloat16 for NumPy. A mapped float32 weight is used in place: it is not copied, takes no time
to load, and is shared between processes. Pickled formats are never opened.

Source: https://huggingface.co/docs/safetensors (file format).
"""

from __future__ import annotations

import json
import math
import mmap
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from mi_ref.errors import WeightError
from mi_ref.output.fingerprint import Fingerprint

HostArray: TypeAlias = npt.NDArray[Any]

_STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
READABLE = tuple(_STORED)
"""The stored dtypes that weights can be read from."""

_MAX_HEADER_BYTES = 100_000_000


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a file's header says about one tensor."""

    dtype: str
    """As its format spells it: ``F32``, ``BF16``, …"""
    shape: tuple[int, ...]
    n_bytes: int | None = None
    """Bytes in a GGUF file, whose dtypes are blocks of numbers; None if the dtype says them."""


@dataclass(frozen=True, slots=True)
class WeightFiles:
    """What is known of weight files without keeping them mapped."""

    info: Mapping[str, TensorInfo]
    """Dtype and shape of every tensor, by name."""
    fingerprint: Fingerprint

    def sha256(self) -> str:
        """Return the SHA-256 of all files' bytes, in their order, as hex."""
        return self.fingerprint.sha256()


@dataclass(frozen=True, slots=True)
class _Place:
    info: TensorInfo
    file: int
    start: int
    stop: int


class Weights:
    """The tensors of one checkpoint, in one file or several, mapped and read on demand.

    Parameters
    ----------
    paths : iterable of Path
        Safetensors files.
    weight_map : mapping or None
        From tensor to file name, from ``model.safetensors.index.json``; checked against the files.

    Raises
    ------
    WeightError
        If a file is truncated or malformed, a tensor is in two files, or the index and the files
        disagree.
    """

    def __init__(self, paths: Iterable[Path], weight_map: Mapping[str, str] | None = None) -> None:
        self._paths = tuple(paths)
        self._fingerprint = Fingerprint(self._paths)
        self._maps: list[mmap.mmap] = []
        self._places: dict[str, _Place] = {}
        for number, path in enumerate(self._paths):
            for name, info, start, stop in _read_header(path):
                if name in self._places:
                    other = self._paths[self._places[name].file].name
                    raise WeightError(
                        f"{name} is in both {other} and {path.name}. Fetch the files again."
                    )
                self._places[name] = _Place(info, number, start, stop)
            with path.open("rb") as file:
                self._maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        _check_index(weight_map, self._places, self._paths)

    @property
    def info(self) -> dict[str, TensorInfo]:
        """Dtype and shape of every tensor, by name."""
        return {name: place.info for name, place in self._places.items()}

    def load(self, name: str, dtype: str) -> HostArray:
        """Return tensor `name` as a read-only host array of `dtype`.

        The array is a view of the mapped file if the tensor is stored in `dtype`, else a decoded
        copy, which is exact for bfloat16 and float16. The memory of the bytes that a copy was
        decoded from is released.

        Parameters
        ----------
        name : str
            The tensor.
        dtype : {"float32", "float64"}
            The dtype of the array.

        Raises
        ------
        WeightError
            If the stored dtype cannot be read, or a value is not finite.
        """
        place = self._places[name]
        if place.info.dtype not in _STORED:
            raise WeightError(
                f"{name} is stored as {place.info.dtype}; expected one of {', '.join(_STORED)}."
                " Quantised weights cannot be read: use the original checkpoint."
            )
        stored = np.dtype(_STORED[place.info.dtype])
        count = math.prod(place.info.shape)
        mapped = self._maps[place.file]
        raw = np.frombuffer(mapped, dtype=stored, count=count, offset=place.start)
        flat = _decode(raw, place.info.dtype, np.dtype(dtype))
        check_finite(flat, name)
        if flat is not raw:
            _release(mapped, place.start, place.stop)
        flat.flags.writeable = False  # like a mapped file: models are never changed in place
        return flat.reshape(place.info.shape)

    def files(self) -> WeightFiles:
        """Return what to remember of the files once their tensors are loaded."""
        return WeightFiles(self.info, self._fingerprint)


def _read_header(path: Path) -> list[tuple[str, TensorInfo, int, int]]:
    """Return name, info and absolute byte range of each tensor, after checking that they fit."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
        if not 2 <= length <= min(size - 8, _MAX_HEADER_BYTES):
            raise WeightError(
                f"{path} is not a complete safetensors file: it has {size} bytes, and the first 8"
                f" announce a header of {length} bytes. Was the download interrupted, or is it a"
                " Git LFS pointer? Fetch it again."
            )
        text = file.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        entries = [
            (name, TensorInfo(str(entry["dtype"]), _sizes(entry["shape"])), start, stop)
            for name, entry in header.items()
            for start, stop in [_sizes(entry["data_offsets"])]
        ]
        bounds = sorted((start, stop) for _, _, start, stop in entries)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightError(
            f"the header of {path} is not that of a safetensors file: {error}. Fetch it again."
        ) from error
    begin, needed = 8 + length, max((stop for _, stop in bounds), default=0)
    if begin + needed > size:
        raise WeightError(
            f"{path} is truncated: {size} bytes, but its header needs {begin + needed}."
            " Fetch the file again."
        )
    if any(stop < start for start, stop in bounds) or any(
        later[0] < earlier[1] for earlier, later in pairwise(bounds)
    ):
        raise WeightError(
            f"the header of {path} gives tensors ranges that overlap or run backwards. Fetch it"
            " again."
        )
    for name, info, start, stop in entries:
        width = np.dtype(_STORED[info.dtype]).itemsize if info.dtype in _STORED else None
        if width is not None and math.prod(info.shape) * width != stop - start:
            raise WeightError(
                f"{name} in {path}: expected {math.prod(info.shape) * width} bytes for"
                f" {info.dtype} {info.shape}, got {stop - start}. Fetch the file again."
            )
    return [(name, info, begin + start, begin + stop) for name, info, start, stop in entries]


def _sizes(values: Any) -> tuple[int, ...]:
    """Return parsed sizes or offsets, which are whole numbers from 0 up."""
    if not all(type(value) is int and value >= 0 for value in values):
        raise ValueError(f"expected whole numbers from 0 up, got {values}")
    return tuple(values)


def _check_index(
    weight_map: Mapping[str, str] | None, places: Mapping[str, _Place], paths: tuple[Path, ...]
) -> None:
    """Refuse an index that places tensors in other files than those that contain them."""
    wrong = [
        f"{name}: index says {file}, "
        + (f"found in {paths[places[name].file].name}" if name in places else "found nowhere")
        for name, file in (weight_map or {}).items()
        if name not in places or paths[places[name].file].name != file
    ]
    if wrong:
        listed = "; ".join(wrong[:8]) + (f"; and {len(wrong) - 8} more" if len(wrong) > 8 else "")
        raise WeightError(
            f"model.safetensors.index.json and its shards disagree. {listed}. Fetch them again."
        )


def _decode(raw: HostArray, stored: str, dtype: np.dtype[Any]) -> HostArray:
    """Widen stored values exactly; return the same object if there is nothing to do."""
    if stored == "BF16":
        # A bfloat16 is the upper half of the float32 of the same value.
        halves = np.zeros((raw.size, 2), dtype="<u2")
        halves[:, 1] = raw
        raw = halves.view("<f4").reshape(-1)
    return raw if raw.dtype == dtype and raw.flags.aligned else raw.astype(dtype)


def check_finite(flat: HostArray, name: str) -> None:
    """Refuse a flat tensor that has NaN or infinite values."""
    # The sum of squares is finite only if every term is: one pass without a temporary, on all
    # cores. If the sum overflows, the values are checked one by one.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(flat @ flat):
            return
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        raise WeightError(
            f"{name} has {bad.size} NaN or infinite values (first: flat index {bad[0]},"
            f" {flat[bad[0]]}), which would make every activation NaN. The file is damaged, or was"
            " saved after training diverged: fetch it again or use another checkpoint."
        )


def _release(mapped: mmap.mmap, start: int, stop: int) -> None:
    """Release the pages of decoded bytes, so that the weights are in memory only once."""
    if hasattr(mmap, "MADV_DONTNEED"):
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        last = stop // mmap.PAGESIZE * mmap.PAGESIZE
        if last > first:
            mapped.madvise(mmap.MADV_DONTNEED, first, last - first)
