"""What a checkpoint is: its parsed config, its family and its tokenizer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_ref.checkpoints.files import Checkpoint
from mi_ref.checkpoints.safetensors import TensorInfo, Weights
from mi_ref.errors import ConfigError, WeightError
from mi_ref.families import FAMILIES, Family
from mi_ref.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from mi_ref.checkpoints.gguf.weights import GgufWeights
    from mi_ref.checkpoints.nearest import Fit


def read_config_file(path: Path) -> dict[str, Any]:
    """Return the parsed ``config.json``.

    Raises
    ------
    ConfigError
        If it is not a JSON object.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}. Fetch the file again.") from error
    if not isinstance(raw, dict):
        raise ConfigError(
            f"{path}: expected a JSON object, got a {type(raw).__name__}. Fetch the file again."
        )
    return raw


def read_config(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return the parsed ``config.json``, or the same keys from the metadata of a GGUF file.

    Raises
    ------
    ConfigError
        If ``config.json`` is not a JSON object.
    """
    if checkpoint.gguf is not None:
        return checkpoint.gguf.config.raw
    return read_config_file(checkpoint.config)


def open_weights(checkpoint: Checkpoint) -> Weights | GgufWeights:
    """Map the weight files and read their headers, nothing else."""
    if checkpoint.gguf is not None:
        return checkpoint.gguf.weights
    return Weights(checkpoint.weights, checkpoint.weight_map)


def known_family(raw: Mapping[str, Any]) -> Family | None:
    """Return the family of a config's ``model_type``; None if there is none."""
    model_type = raw.get("model_type")
    return FAMILIES.get(model_type) if isinstance(model_type, str) else None


def find_family(raw: Mapping[str, Any], checkpoint: Checkpoint) -> Family:
    """Return the family of a config's ``model_type``, or an inferred one with a warning.

    Raises
    ------
    ConfigError
        If there is no such family and the files do not fit the decoder exactly. The message names
        the nearest family and lists the differences from it.
    """
    family = known_family(raw)
    return _infer_family(raw, checkpoint) if family is None else family


def _infer_family(raw: Mapping[str, Any], checkpoint: Checkpoint) -> Family:
    # Known families, which most checkpoints belong to, load without these imports.
    from mi_ref.checkpoints.infer import inferred
    from mi_ref.checkpoints.nearest import nearest

    tensors, damage = read_headers(checkpoint)
    found = inferred(raw, tensors)
    if found is None:
        raise ConfigError(_unknown_family(raw, checkpoint, nearest(raw, tensors), damage))
    listed = "\n  ".join(found.config.inferred)
    warnings.warn(
        f"{checkpoint.config}: {unsupported(raw.get('model_type'))}. Its config and tensors fit the"
        f" decoder exactly, so it is loaded as one. Inferred, not known:\n  {listed}\nCompare with"
        " another implementation before you trust its numbers.",
        stacklevel=4,
    )
    return found.family


def _unknown_family(
    raw: Mapping[str, Any], checkpoint: Checkpoint, near: Fit, damage: str | None
) -> str:
    """Return the message for an unknown ``model_type``: the nearest family and the differences."""
    from mi_ref.checkpoints.infer import lookalike

    family = near.family.model_type
    hidden = lookalike(raw.get("model_type"))
    differences = [] if damage is None else [damage]
    if hidden is not None:
        differences.append(f"it {hidden}, which no file shows")
    differences += near.sentences(names_only=True)
    listed = "\n  ".join(differences) or "nothing that config and headers show"
    return (
        f"{checkpoint.config}: {unsupported(raw.get('model_type'))}. The nearest is {family}, but"
        " running one as the other could give plausible wrong numbers, so loading stops here."
        f" Differences from {family}:\n  {listed}"
    )


def unsupported(model_type: object) -> str:
    """Return the sentence that says that a ``model_type`` is not supported."""
    given = "an absent model_type" if model_type is None else f"model_type {model_type!r}"
    return f"{given} is not supported (supported: {', '.join(FAMILIES)})"


def read_headers(checkpoint: Checkpoint) -> tuple[Mapping[str, TensorInfo] | None, str | None]:
    """Return the tensors' headers, or None and the reason why they cannot be read."""
    if checkpoint.headers is not None:
        return checkpoint.headers, None
    try:
        return open_weights(checkpoint).info, None
    except WeightError as error:
        return None, str(error)


def open_tokenizer(checkpoint: Checkpoint, raw: Mapping[str, Any]) -> Tokenizer:
    """Return the checkpoint's tokenizer, which is read when it first meets text."""
    if checkpoint.gguf is not None and checkpoint.tokenizer is None:
        from mi_ref.checkpoints.gguf.tokenizer import load_gguf

        metadata, templates = checkpoint.gguf.file.metadata, checkpoint.chat_templates
        return Tokenizer(checkpoint.name, partial(load_gguf, metadata, checkpoint.name, templates))
    sentencepiece = checkpoint.config.parent / "tokenizer.model"
    return Tokenizer.from_files(
        checkpoint.tokenizer,
        checkpoint.tokenizer_config,
        world=checkpoint.world,
        sentencepiece=sentencepiece if sentencepiece.exists() else None,
        source=checkpoint.name,
        bos_id=_token_id(raw, "bos_token_id"),
        eos_id=_token_id(raw, "eos_token_id"),
        chat_templates=checkpoint.chat_templates,
    )


def _token_id(raw: Mapping[str, Any], key: str) -> int | None:
    """Return a special token's id; the first one of a list."""
    value = raw.get(key)
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) else None
