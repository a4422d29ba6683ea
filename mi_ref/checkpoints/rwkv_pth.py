"""Converting BlinkDL's RWKV checkpoints (``.pth``) to folders for `mi_ref.from_pretrained`.

A ``.pth`` file is a pickle, and reading a pickle can run any code hidden in it. Here torch reads
only its tensors and refuses everything else.
"""

from __future__ import annotations

import os
import re
import shutil
import warnings
import zipfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from mi_ref.checkpoints.files import CONFIG, SINGLE, WORLD
from mi_ref.checkpoints.rwkv_names import Conversion, plan_conversion
from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.checkpoints.write import check_out, write_folder, write_safetensors
from mi_ref.errors import ArgumentError, WeightError
from mi_ref.output.files import write_json

_DTYPES = {f"torch.float{bits}": f"F{bits}" for bits in (16, 32, 64)} | {"torch.bfloat16": "BF16"}
_END_OF_TEXT = 0
"""Id of ``<|endoftext|>`` in the World vocabulary, whose file omits it."""


def convert_rwkv(
    src: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    vocab: str | os.PathLike[str] | None = None,
) -> Path:
    """Convert an RWKV-6 (x060) or RWKV-7 (x070) checkpoint; its dtypes are kept.

    The folder is written atomically. Apart from the mapped file, only one tensor at a time is in
    memory. RWKV-6 gets the layout of ``RWKV/v6-Finch-*-HF``, RWKV-7 that of flash-linear-attention.
    RWKV-7's ``blocks.0.att.v0``, ``v1`` and ``v2`` are unused and dropped, and ``norm_first`` is
    false if there is no ``blocks.0.ln0``. Requires the extra ``mi_ref[convert]``.

    Parameters
    ----------
    src : str or path
        The ``.pth`` file.
    out : str or path
        The folder to create, which may exist if it is empty.
    vocab : str or path or None
        ``rwkv_vocab_*.txt`` to copy into the folder; without it, the model takes only token ids.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    WeightError
        If the file contains more than tensors, is damaged, or is another version or variant, with
        every faulty tensor; or if torch is missing or too old to be safe.
    ArgumentError
        If `out` is a file, not empty or in no folder, or `vocab` is not a vocabulary file.
    OSError
        If a file cannot be read or written.
    """
    source, folder = Path(src), Path(out)
    copied = None if vocab is None else _vocabulary(Path(vocab))
    check_out(folder)
    torch = _torch()
    tensors = _read(torch, source)
    plan = plan_conversion(_info(tensors), source=str(source))
    eos = None if copied is None else _END_OF_TEXT

    def fill(made: Path) -> None:
        write_json(made / CONFIG, {**plan.config, "bos_token_id": None, "eos_token_id": eos})
        _write(torch, made / SINGLE, plan, tensors)
        if copied is not None:
            shutil.copyfile(copied, made / copied.name)

    write_folder(folder, fill)
    return folder


def _vocabulary(path: Path) -> Path:
    if not WORLD.search(path.name):
        raise ArgumentError(
            f"vocab={str(path)!r}: expected a file named rwkv_vocab_*.txt, because no other name is"
            " found when the folder is loaded. Rename it."
        )
    if not path.is_file():
        raise ArgumentError(f"there is no vocabulary file {str(path)!r}. Check vocab=.")
    return path


def _torch() -> Any:
    try:
        # By name and only here, so that no other part of the package depends on torch.
        torch = import_module("torch")
    except ModuleNotFoundError as error:
        raise WeightError(
            f"reading a .pth file requires {error.name}, which is not installed:"
            " pip install 'mi_ref[convert]'"
        ) from error
    installed = str(torch.__version__)
    if [int(part) for part in installed.split(".")[:2]] < [2, 6]:
        raise WeightError(
            f"torch {installed} can be made to run code even when it reads only tensors"
            " (CVE-2025-32434): pip install 'mi_ref[convert]' installs 2.6 or newer."
        )
    return torch


def _read(torch: Any, path: Path) -> dict[str, Any]:
    """Return the tensors by name, mapped if the file is a zip archive, as torch writes them."""
    with path.open("rb") as file:
        mapped = zipfile.is_zipfile(file)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about formats that it then refuses
            held = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # arbitrary bytes can make an unpickler fail in any way
        raise WeightError(f"{path} {_reason(error)}") from error
    entries = held.items() if isinstance(held, Mapping) else [("the file itself", held)]
    others = [f"{k} ({type(v).__name__})" for k, v in entries if not isinstance(v, torch.Tensor)]
    if others:
        raise WeightError(
            f"{path} contains more than named tensors: {', '.join(others[:8])}. Pass the .pth file"
            " of a model's weights as BlinkDL releases it."
        )
    return {str(name): tensor for name, tensor in entries}


def _reason(error: Exception) -> str:
    """Return why torch refused the file, without its advice to load it unsafely."""
    text = " ".join(str(error).split())
    asked = re.search(r"GLOBAL ([\w.]*\w)", text)
    if asked:
        return (
            f"contains more than tensors: it asks for {asked[1]}. Loading that could run any code,"
            " so it is not read. Get a file of tensors alone from the author."
        )
    unsafe = "weights_only" in text
    said = "not a pickle of tensors" if unsafe else f"{type(error).__name__} {text[:80]}".strip()
    return (
        f"cannot be read ({said}). It is damaged (an interrupted download, a Git LFS pointer) or"
        " contains more than tensors. Fetch it again from its author."
    )


def _info(tensors: Mapping[str, Any]) -> dict[str, TensorInfo]:
    return {
        name: TensorInfo(_DTYPES.get(str(tensor.dtype), str(tensor.dtype)), tuple(tensor.shape))
        for name, tensor in tensors.items()
    }


def _write(torch: Any, path: Path, plan: Conversion, tensors: Mapping[str, Any]) -> None:
    # Widest dtypes first, so that each tensor is aligned to the width of its values.
    moves = sorted(plan.moves, key=lambda move: -tensors[move.old].element_size())
    info, sources = _info(tensors), {move.new: move for move in moves}

    def read(name: str) -> Any:
        move = sources[name]
        tensor = tensors[move.old].detach()
        flat = (tensor.T if move.transposed else tensor).contiguous().reshape(-1)
        return flat.view(torch.uint8).numpy()

    entries = {
        name: (
            TensorInfo(info[move.old].dtype, tuple(plan.shape(move))),
            int(tensors[move.old].nbytes),
        )
        for name, move in sources.items()
    }
    write_safetensors(path, entries, read)
