"""Writing a checkpoint folder, tensor by tensor."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.errors import ArgumentError
from mi_ref.output.files import write_whole
from mi_ref.output.progress import tracked


def check_out(folder: Path) -> None:
    """Refuse a folder that cannot be written, before anything is read.

    Raises
    ------
    ArgumentError
        If it is a file, not empty or in no folder.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        found = "is a file" if folder.is_file() else "is not empty"
        raise ArgumentError(f"{str(folder)!r} {found}: name a new folder.")
    if not folder.absolute().parent.is_dir():
        raise ArgumentError(
            f"{str(folder)!r} cannot be created: there is no folder {str(folder.parent)!r}."
            " Create it first."
        )


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Have `fill` write into an empty folder that becomes `folder` if it succeeds."""

    def made(temporary: Path) -> None:
        temporary.mkdir()
        fill(temporary)
        if folder.is_dir():
            folder.rmdir()

    write_whole(folder.absolute(), made)


def write_safetensors(
    path: Path, tensors: Mapping[str, tuple[TensorInfo, int]], read: Callable[[str], Any]
) -> None:
    """Write a safetensors file with one tensor in memory at a time.

    Parameters
    ----------
    path : Path
        The file.
    tensors : mapping
        Each tensor's header and number of bytes, in the order of the file. Wide dtypes come first,
        so that each tensor is aligned to the width of its values.
    read : callable
        Returns a tensor's bytes by its name, as a contiguous buffer.
    """
    header, end = {}, 0
    for name, (info, size) in tensors.items():
        start, end = end, end + size
        header[name] = {"dtype": info.dtype, "shape": info.shape, "data_offsets": [start, end]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in tracked(list(tensors), "converting"):
            file.write(read(name))
