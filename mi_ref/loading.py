"""From a name to a model: find the files, read the config, check and take the weights."""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mi_ref.backend import Backend, get_backend
from mi_ref.compat import with_compat
from mi_ref.decoder_points import decoder_hook_points
from mi_ref.errors import ConfigError
from mi_ref.families import FAMILIES, Family
from mi_ref.hf_config import HfConfig
from mi_ref.model import Model
from mi_ref.provenance import Source
from mi_ref.take_params import take_params
from mi_ref.tensor_check import check_tensors
from mi_ref.tokenizer import Tokenizer
from mi_ref.weights import Weights

if TYPE_CHECKING:
    from mi_ref.checkpoint import Checkpoint


def from_pretrained(
    name_or_path: str | os.PathLike[str],
    *,
    backend: str | Backend = "numpy",
    device: str | int | None = None,
    dtype: str = "float32",
    revision: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
    allow_unread_config: Collection[str] = (),
    compat: Literal["candle-mi"] | None = None,
) -> Model:
    """Load a model.

    Parameters
    ----------
    name_or_path : str or path
        A bundled model (``"atlas"``), a folder with ``config.json`` and safetensors, or a
        repository on the HuggingFace Hub (``"HuggingFaceTB/SmolLM-135M"``).
    backend : str or Backend
        ``"numpy"`` (CPU), ``"cupy"`` (GPU), or another installed backend.
    device : str, int or None
        Which device of the backend; None for its default.
    dtype : {"float32", "float64"}
        What everything is computed in.
    revision : str or None
        Branch, tag or commit on the Hub.
    token : str, bool or None
        Access token for the Hub; None for the one you are logged in with.
    local_files_only : bool
        Use the Hub's cache and never the network.
    allow_unread_config : collection of str
        Keys of ``config.json`` that you know to touch no arithmetic. Recorded in
        ``model.cfg.unread_config`` and in every saved result.
    compat : {"candle-mi"} or None
        Compute as that program does where it differs from HuggingFace, to reproduce its published
        figures: see :mod:`mi_ref.compat`. Recorded in ``model.cfg.compat`` and in every saved
        result.

    Returns
    -------
    Model

    Raises
    ------
    HubError, ConfigError, WeightError, BackendError
        If it cannot be found, or cannot be honoured exactly.
    """
    from mi_ref.hub import find_checkpoint

    chosen = get_backend(backend, device)
    target = chosen.dtype(dtype)
    checkpoint = find_checkpoint(
        name_or_path, revision=revision, token=token, local_files_only=local_files_only
    )
    raw = read_config_file(checkpoint.config)
    family = find_family(raw, checkpoint)
    weights = Weights(checkpoint.weights, checkpoint.weight_map)
    read = HfConfig(
        raw,
        source=str(checkpoint.config),
        family=family.model_type,
        shapes={name: tensor.shape for name, tensor in weights.info.items()},
    )
    cfg = family.read_config(read)
    cfg = with_compat(cfg, compat)
    cfg = replace(cfg, unread_config=read.done(allow_unread=allow_unread_config))
    check_tensors(cfg, family.weight_names, weights.info, source=checkpoint.name)

    def take(name: str) -> Any:
        return chosen.from_host(weights.load(name, dtype))

    params = take_params(cfg, family.weight_names, take, weights.info, chosen.xp)
    if params.embed.dtype != target:
        raise ConfigError(f"backend {chosen.name!r} gave {params.embed.dtype} for {target}.")
    return Model(
        cfg=cfg,
        params=params,
        backend=chosen,
        tokenizer=open_tokenizer(checkpoint, raw),
        hook_points=decoder_hook_points(cfg),
        source=Source(checkpoint.name, checkpoint.revision, weights),
    )


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
        from mi_ref.inspection import infer_or_refuse

        family = infer_or_refuse(raw, checkpoint)
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
