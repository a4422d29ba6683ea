"""What a checkpoint is, by its config and its tensors' headers: its family and its tokenizer."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_ref.auto_config import inferred, lookalike
from mi_ref.checkpoint import Checkpoint
from mi_ref.errors import ConfigError, WeightError
from mi_ref.families import FAMILIES, Family
from mi_ref.fitting import nearest
from mi_ref.tokenizer import Tokenizer
from mi_ref.weights import TensorInfo, Weights


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
        raise ConfigError(f"{path} holds a {type(raw).__name__}; a config is a JSON object.")
    return raw


def find_family(raw: dict[str, Any], checkpoint: Checkpoint) -> Family:
    """Return the family of a config's ``model_type``, or one inferred, with a warning that says so.

    Raises
    ------
    ConfigError
        If there is none, with the nearest family and what differs from it.
    """
    model_type = raw.get("model_type")
    family = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    if family is None:
        family = _infer_or_refuse(raw, checkpoint)
    return family


def open_tokenizer(checkpoint: Checkpoint, raw: dict[str, Any]) -> Tokenizer:
    """Return the checkpoint's tokenizer, which is not read before text is involved."""
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


def _token_id(raw: dict[str, Any], key: str) -> int | None:
    """Return a special token's id; of several, the first."""
    value = raw.get(key)
    value = value[0] if isinstance(value, list) and value else value
    return value if isinstance(value, int) else None


def unsupported(model_type: object) -> str:
    """Return what is wrong with a ``model_type`` that is no family's."""
    given = "an absent model_type" if model_type is None else f"model_type {model_type!r}"
    return f"{given} is not supported (supported: {', '.join(FAMILIES)})"


def tensors_of(checkpoint: Checkpoint) -> tuple[Mapping[str, TensorInfo] | None, str | None]:
    """Return the tensors' headers, or why they cannot be read."""
    if checkpoint.headers is not None:
        return checkpoint.headers, None
    try:
        # Maps the files and reads their headers, no more.
        return Weights(checkpoint.weights, checkpoint.weight_map).info, None
    except WeightError as error:
        return None, str(error)


def _infer_or_refuse(raw: Mapping[str, Any], checkpoint: Checkpoint) -> Family:
    """Return a family inferred from config and tensors, with a warning that says what was.

    Raises
    ------
    ConfigError
        If they do not fit the decoder exactly, with the nearest family and what differs from it.
    """
    tensors, damage = tensors_of(checkpoint)
    found = inferred(raw, tensors)
    if found is None:
        raise ConfigError(_unknown_family(raw, checkpoint, tensors, damage))
    listed = "\n  ".join(found.config.inferred)
    warnings.warn(
        f"{checkpoint.config}: {unsupported(raw.get('model_type'))}. Config and tensors fit the"
        f" decoder exactly, so it is read as one. Inferred, not known:\n  {listed}\nCompare with"
        " another implementation before you trust its numbers.",
        stacklevel=4,
    )
    return found.family


def _unknown_family(
    raw: Mapping[str, Any],
    checkpoint: Checkpoint,
    tensors: Mapping[str, TensorInfo] | None,
    damage: str | None,
) -> str:
    """Return the message for a ``model_type`` without a family: the nearest, and what differs."""
    found = nearest(raw, tensors)
    family = found.family.model_type
    unseen = lookalike(raw.get("model_type"))
    known = [f"it {unseen}, which no file shows"] if unseen else []
    differs = [*([damage] if damage else []), *known, *found.sentences(names_only=True)]
    listed = "\n  ".join(differs) or "nothing that config and headers show"
    return (
        f"{checkpoint.config}: {unsupported(raw.get('model_type'))}. The nearest is {family}, but"
        " running one as the other could give plausible wrong numbers, so loading stops here."
        f" What differs from {family}:\n  {listed}"
    )
