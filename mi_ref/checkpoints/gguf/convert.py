"""Converting a model in GGUF to a folder of safetensors that gives the same numbers."""

from __future__ import annotations

import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from mi_ref.checkpoints.files import (
    CHAT_TEMPLATE,
    CONFIG,
    MORE_TEMPLATES,
    SINGLE,
    TOKENIZER,
    Checkpoint,
)
from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.checkpoints.gguf.model import GgufModel
from mi_ref.checkpoints.gguf.tokenizer import build
from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.checkpoints.write import check_out, write_folder, write_safetensors
from mi_ref.errors import ArgumentError, TokenError
from mi_ref.output.files import write_json


@dataclass(frozen=True, slots=True)
class Converted:
    """What a conversion made."""

    folder: Path
    model_type: str
    n_params: int
    n_tensors: int
    inferred: tuple[str, ...]
    """What the file leaves out and the new config says, in sentences."""
    tokenizer_problem: str | None
    """Why there is no ``tokenizer.json``; None if there is one."""


def convert_gguf(
    name_or_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    revision: str | None = None,
    filename: str | None = None,
) -> Converted:
    """Decode a model in GGUF to float32, which holds every stored number exactly.

    The folder is written atomically, with one tensor in memory at a time. It loads with the same
    numbers as the file, and transformers reads it too.

    Parameters
    ----------
    name_or_path, revision, filename
        As for :func:`mi_ref.from_pretrained`.
    out : str or path
        The folder to create, which may exist if it is empty.

    Raises
    ------
    ArgumentError
        If `out` is a file, not empty or in no folder, or the model is not in GGUF.
    HubError, ConfigError, WeightError
        If the model cannot be found or read.
    """
    folder = Path(out)
    check_out(folder)
    checkpoint = find_checkpoint(name_or_path, revision=revision, filename=filename)
    model = checkpoint.gguf
    if model is None:
        raise ArgumentError(
            f"{checkpoint.name!r} is not in GGUF: expected a .gguf file, or a folder, repository or"
            " package that holds one. Safetensors need no conversion."
        )
    info = {name: TensorInfo("F32", each.shape) for name, each in model.weights.info.items()}
    sizes = {name: math.prod(each.shape) for name, each in info.items()}
    problem: list[str] = []

    def fill(made: Path) -> None:
        write_json(made / CONFIG, {**model.config.raw, "dtype": "float32"})
        problem.extend(_write_tokenizer(made, checkpoint, model))
        entries = {name: (each, 4 * sizes[name]) for name, each in info.items()}
        write_safetensors(made / SINGLE, entries, lambda name: model.weights.load(name, "float32"))

    write_folder(folder, fill)
    return Converted(
        folder=folder,
        model_type=str(model.config.raw["model_type"]),
        n_params=sum(sizes.values()),
        n_tensors=len(info),
        inferred=model.config.inferred,
        tokenizer_problem=problem[0] if problem else None,
    )


def _write_tokenizer(made: Path, checkpoint: Checkpoint, model: GgufModel) -> list[str]:
    """Write the tokenizer's files and return why there are none, if so."""
    for name, template in checkpoint.chat_templates.items():
        target = made / (CHAT_TEMPLATE if name == "default" else f"{MORE_TEMPLATES}/{name}.jinja")
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(template, target)
    if checkpoint.tokenizer is not None:
        for name, path in zip(
            TOKENIZER, (checkpoint.tokenizer, checkpoint.tokenizer_config), strict=True
        ):
            if path is not None:
                shutil.copyfile(path, made / name)
        return []
    try:
        backend, config = build(model.file.metadata, checkpoint.name)
    except TokenError as error:
        return [str(error)]
    backend.save(str(made / TOKENIZER[0]))
    write_json(made / TOKENIZER[1], {**config, "tokenizer_class": "PreTrainedTokenizerFast"})
    return []
