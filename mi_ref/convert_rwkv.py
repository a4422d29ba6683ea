"""BlinkDL's RWKV checkpoints (``.pth``) made into folders that `mi_ref.from_pretrained` reads.

A ``.pth`` file is a pickle, and reading a pickle can run any code hidden in it. torch reads this
one as tensors alone and refuses whatever else it asks for.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mi_ref.blinkdl import Conversion, plan_conversion
from mi_ref.checkpoint import CONFIG, SINGLE, WORLD
from mi_ref.errors import WeightError
from mi_ref.progress import tracked
from mi_ref.provenance import write_json, write_whole
from mi_ref.weights import TensorInfo

_DTYPES = {f"torch.float{bits}": f"F{bits}" for bits in (16, 32, 64)} | {"torch.bfloat16": "BF16"}
_END_OF_TEXT = 0
"""Id of the World vocabulary's ``<|endoftext|>``, which its file leaves out."""


def convert_rwkv(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    vocab: str | os.PathLike[str] | None = None,
) -> Path:
    """Convert an RWKV-6 (x060) or RWKV-7 (x070) checkpoint; its dtypes stay as they are.

    The folder appears whole or not at all; beside the mapped file, memory holds one tensor at a
    time. RWKV-6 takes the layout of ``RWKV/v6-Finch-*-HF``, RWKV-7 that of flash-linear-attention.
    Of RWKV-7, ``blocks.0.att.v0``, ``v1`` and ``v2``, which nothing reads, are dropped, and
    ``norm_first`` is false where there is no ``blocks.0.ln0``. Needs the extra ``mi_ref[convert]``.

    Parameters
    ----------
    src : str or path
        The ``.pth`` file.
    out : str or path
        The folder to make, which may exist if it is empty.
    vocab : str or path or None
        ``rwkv_vocab_*.txt`` to copy beside the weights; without one, the folder takes token ids
        only.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    WeightError
        If the file holds more than tensors, is damaged, or is another version or variant, with
        every tensor at fault; or if torch is missing or too old to be trusted.
    OSError
        If `out` is not empty, or a file is missing or cannot be read or written.
    """
    source, folder = Path(src), Path(out)
    copied = None if vocab is None else _vocabulary(Path(vocab))
    _check_out(folder)
    torch = _torch()
    tensors = _read(torch, source)
    plan = plan_conversion(_info(tensors), source=str(source))
    eos = None if copied is None else _END_OF_TEXT

    def fill(made: Path) -> None:
        made.mkdir()
        write_json(made / CONFIG, {**plan.config, "bos_token_id": None, "eos_token_id": eos})
        _write(torch, made / SINGLE, plan, tensors)
        if copied is not None:
            shutil.copyfile(copied, made / copied.name)
        if folder.is_dir():
            folder.rmdir()

    write_whole(folder.absolute(), fill)
    return folder


def _vocabulary(path: Path) -> Path:
    if not WORLD.search(path.name):
        raise WeightError(
            f"{str(path)!r}: a folder's vocabulary is looked for as rwkv_vocab_*.txt, so under this"
            " name it would not be found. Rename it."
        )
    if not path.is_file():
        raise FileNotFoundError(f"there is no vocabulary file {str(path)!r}.")
    return path


def _check_out(folder: Path) -> None:
    """Refuse a place that cannot take the result, before anything is read for it."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        found = "is a file" if folder.is_file() else "is not empty"
        raise FileExistsError(f"{str(folder)!r} {found}: name a new folder.")
    if not folder.absolute().parent.is_dir():
        raise FileNotFoundError(
            f"{str(folder)!r} cannot be made: there is no folder {str(folder.parent)!r}."
        )


def _torch() -> Any:
    try:
        # Only here, and by name: no other part of the package may come to lean on it.
        torch = import_module("torch")
    except ModuleNotFoundError as error:
        raise WeightError(
            f"reading a .pth file needs {error.name}, which is not installed:"
            " pip install 'mi_ref[convert]'"
        ) from error
    installed = str(torch.__version__)
    if [int(part) for part in installed.split(".")[:2]] < [2, 6]:
        raise WeightError(
            f"torch {installed} can be made to run code by a file of tensors alone"
            " (CVE-2025-32434): pip install 'mi_ref[convert]' brings 2.6 or newer."
        )
    return torch


def _read(torch: Any, path: Path) -> dict[str, Any]:
    """Return the tensors by name, mapped where the file is a zip archive, as torch's own are."""
    with path.open("rb") as file:
        mapped = zipfile.is_zipfile(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's own, of formats that it then refuses
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # arbitrary bytes can trip an unpickler in any way
        raise WeightError(f"{path} {_reason(error)}") from error
    entries = held.items() if isinstance(held, Mapping) else [("the file itself", held)]
    others = [f"{k} ({type(v).__name__})" for k, v in entries if not isinstance(v, torch.Tensor)]
    if others:
        raise WeightError(
            f"{path} holds more than tensors by name: {', '.join(others[:8])}. Pass the .pth file"
            " of a model's weights, as BlinkDL releases it."
        )
    return {str(name): tensor for name, tensor in entries}


def _reason(error: Exception) -> str:
    """Say why torch refused, without its advice to load the file unsafely."""
    text = " ".join(str(error).split())
    asked = re.search(r"GLOBAL ([\w.]*\w)", text)
    if asked:
        return (
            f"holds more than tensors: it asks for {asked[1]}. Loading that could run any code, so"
            " it is not read. Get the weights from their author, as tensors alone."
        )
    unsafe = "weights_only" in text
    said = "no pickle of tensors alone" if unsafe else f"{type(error).__name__} {text[:80]}".strip()
    return (
        f"cannot be read ({said}). It is damaged (an interrupted download, a Git LFS pointer) or"
        " holds more than tensors. Fetch it again from its author."
    )


def _info(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(_DTYPES.get(str(tensor.dtype), str(tensor.dtype)), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def _write(torch: Any, path: Path, plan: Conversion, tensors: Mapping[str, Any]) -> None:
    """Write a safetensors file tensor by tensor; the library's own function wants all at once."""
    # Widest numbers first, so that each tensor starts at a multiple of its own.
    moves = sorted(plan.moves, key=lambda move: -tensors[move.old].element_size())
    info, header, end = _info(tensors), {}, 0
    for move in moves:
        start, end = end, end + tensors[move.old].nbytes
        header[move.new] = {
            "dtype": info[move.old].dtype,
            "shape": plan.shape(move),
            "data_offsets": [start, end],
        }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for move in tracked(moves, "converting"):
            tensor = tensors[move.old].detach()
            flat = (tensor.T if move.transposed else tensor).contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy())
