"""The tensors of a GGUF file as the HuggingFace checkpoint has them, decoded when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from mi_ref.checkpoints.gguf.file import GgufFile
from mi_ref.checkpoints.gguf.header import StoredTensor
from mi_ref.checkpoints.gguf.names import Origin
from mi_ref.checkpoints.gguf.types import package
from mi_ref.checkpoints.safetensors import HostArray, TensorInfo, WeightFiles, check_finite
from mi_ref.errors import WeightError

# Numbers decoded at a time: few enough to stay in a core's cache.
_AT_ONCE = 1 << 17


class GgufWeights:
    """The tensors of one model, by their names in a HuggingFace checkpoint.

    Parameters
    ----------
    file : GgufFile
        The model's file.
    origins : mapping
        What each tensor is made of.

    Raises
    ------
    WeightError
        If the package ``gguf`` cannot decode a type that the file uses.
    """

    def __init__(self, file: GgufFile, origins: Mapping[str, Origin]) -> None:
        self._file = file
        self._origins = origins
        self._tensors = file.tensors
        self._fingerprint = file.fingerprint()
        self._check_types()

    @property
    def info(self) -> dict[str, TensorInfo]:
        """Type of storage and shape of every tensor, by name."""
        return {
            name: self._info(self._tensors[origin.stored], origin)
            for name, origin in self._origins.items()
        }

    def load(self, name: str, dtype: str) -> HostArray:
        """Return tensor `name` as a read-only host array of `dtype`.

        A view of the mapped file if it is stored so, else a decoded copy; what a stored block
        stands for is exact in float32, so also in float64.

        Raises
        ------
        WeightError
            If it is not finite.
        """
        origin = self._origins[name]
        tensor = self._tensors[origin.stored]
        flat = self._decoded(tensor, origin.rows, np.dtype(dtype))
        found = flat.reshape(-1, *tensor.shape[1:]) if tensor.shape[1:] else flat
        for undo in origin.undo:
            found = undo(found)
        found = np.ascontiguousarray(found).reshape(origin.shape)
        check_finite(found.reshape(-1), name)
        found.flags.writeable = False  # as a mapped file is: a model is never changed in place
        return found

    def files(self) -> WeightFiles:
        """Return what to remember of the files once their tensors are loaded."""
        return WeightFiles(self.info, self._fingerprint)

    @staticmethod
    def _info(tensor: StoredTensor, origin: Origin) -> TensorInfo:
        stored, count = tensor.stored, math.prod(origin.shape)
        return TensorInfo(stored.name, origin.shape, count // stored.block * stored.size)

    def _decoded(
        self, tensor: StoredTensor, rows: tuple[int, int], dtype: np.dtype[np.floating]
    ) -> HostArray:
        stored, width = tensor.stored, tensor.shape[-1]
        start, stop = (row * width // stored.block * stored.size for row in rows)
        if stored.name == "F32" and dtype == np.float32:
            raw = np.frombuffer(self._file.read(tensor.name, start, stop), "<f4")
            return raw if raw.flags.aligned else raw.copy()
        decode = package().quants.dequantize
        kind = package().GGMLQuantizationType(tensor.type_id)
        decoded = np.empty((rows[1] - rows[0]) * width, dtype)
        step = max(_AT_ONCE // stored.block, 1) * stored.size
        for first in range(start, stop, step):
            last = min(first + step, stop)
            # One long row: the package cuts an array of many into groups of sixteen.
            raw = np.frombuffer(self._file.read(tensor.name, first, last), np.uint8)
            block = decode(raw.reshape(1, -1), kind)
            place = (first - start) // stored.size * stored.block
            decoded[place : place + block.size] = block[0]
        self._file.release(tensor.name, start, stop)
        return decoded

    def _check_types(self) -> None:
        """Refuse a type that is known by name and size only."""
        wrong: dict[str, str] = {}
        for name, tensor in self._tensors.items():
            wrong.setdefault(tensor.stored.name, name)
        for stored_name, name in wrong.items():
            tensor = self._tensors[name]
            zeros = np.zeros((1, tensor.stored.size), np.uint8)
            try:
                kind = package().GGMLQuantizationType(tensor.type_id)
                package().quants.dequantize(zeros, kind)
            except NotImplementedError as error:
                raise WeightError(
                    f"{name} is stored as {stored_name}, which the installed package 'gguf' cannot"
                    " decode. Get the model in another quantisation (Q8_0, Q4_K_M, F16, …)."
                ) from error


def numbers(file: GgufFile, name: str) -> list[float] | None:
    """Return a small float32 tensor's numbers as a flat list; None if the file has no such one.

    Raises
    ------
    WeightError
        If it is stored in another type.
    """
    tensor = file.tensors.get(name)
    if tensor is None:
        return None
    if tensor.stored.name != "F32":
        raise WeightError(f"{name} is stored as {tensor.stored.name}; expected F32.")
    count = 4 * math.prod(tensor.shape)
    return [float(value) for value in np.frombuffer(file.read(name, 0, count), "<f4")]
