"""What a checkpoint is and whether it would load, from its headers alone: no weight is read."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from math import prod
from typing import Any

from mi_ref.checkpoints.files import Checkpoint
from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.checkpoints.infer import inferred
from mi_ref.checkpoints.inspect_table import inspection_table, sizes
from mi_ref.checkpoints.inspected import Inspected, TokenizerFacts
from mi_ref.checkpoints.nearest import Fit, fit, nearest
from mi_ref.checkpoints.recognise import (
    known_family,
    open_tokenizer,
    read_config,
    read_headers,
)
from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.errors import TokenError
from mi_ref.output.files import write_json
from mi_ref.output.tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection(Inspected):
    """What a checkpoint is, and every reason for which it would be refused; prints as a table."""

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "format": "mi_ref.inspection/1",
            "name": self.name,
            "revision": self.revision,
            "model_type": self.model_type,
            "family": self.fit.family.model_type,
            "supported": self.supported,
            "loads": not self.refusals,
            "refusals": list(self.refusals),
            "sizes": None if self.config is None else sizes(self.config),
            "n_params": self.n_params,
            "n_tensors": self.n_tensors,
            "stored_bytes": {dtype: size for dtype, (_, size) in self.stored.items()},
            "memory_bytes": {"float32": 4 * self.n_params, "float64": 8 * self.n_params},
            "tokenizer": asdict(self.tokenizer),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `record` as JSON, atomically."""
        write_json(path, self.record())

    def table(self) -> Table:
        """Return a table of what the checkpoint is and whether it loads, or why not."""
        return inspection_table(self)

    def print(self) -> None:
        """Print the table."""
        self.table().print()

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


def inspect_checkpoint(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    filename: str | None = None,
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Inspection:
    """Describe a checkpoint without reading or downloading its weights.

    Parameters
    ----------
    name_or_path, revision, filename, token, local_files_only
        As for :func:`mi_ref.from_pretrained`.

    Returns
    -------
    Inspection
        With every fault that loading would find, except values that are not finite.

    Raises
    ------
    HubError, ConfigError
        If files are missing, or ``config.json`` is not a JSON object.
    """
    checkpoint = find_checkpoint(
        name_or_path,
        revision=revision,
        filename=filename,
        token=token,
        local_files_only=local_files_only,
        headers_only=True,
    )
    raw = read_config(checkpoint)
    model_type = raw.get("model_type")
    tensors, damage = read_headers(checkpoint)
    known = known_family(raw)
    guessed = inferred(raw, tensors) if known is None else None
    if known is not None:
        found = fit(known, raw, tensors)
    elif guessed is not None:
        found = guessed
    else:
        found = nearest(raw, tensors)
    if checkpoint.gguf is not None:
        found = replace(found, config=checkpoint.gguf.with_inferred(found.config))
    return Inspection(
        name=checkpoint.name,
        revision=checkpoint.revision,
        model_type=None if model_type is None else str(model_type),
        fit=found,
        supported=known is not None or guessed is not None,
        damage=damage,
        n_tensors=len(tensors or {}),
        stored=_stored(tensors or {}, found),
        tokenizer=_tokenizer(checkpoint, raw),
    )


def _stored(tensors: Mapping[str, TensorInfo], found: Fit) -> dict[str, tuple[int, int]]:
    """Return the number of parameters and of bytes stored in each dtype."""
    stored: dict[str, tuple[int, int]] = {}
    names = found.family.weight_names.found_in(tensors)
    spared = names.spared(found.config.n_layers)
    for name, info in tensors.items():
        if name not in spared:
            count, size = stored.get(info.dtype, (0, 0))
            stored[info.dtype] = count + prod(info.shape), size + _bytes(info)
    return stored


def _bytes(info: TensorInfo) -> int:
    if info.n_bytes is not None:
        return info.n_bytes
    # The number in a dtype's name is its width in bits; BOOL, which has none, takes 8.
    bits = int((re.search(r"\d+", info.dtype) or ["8"])[0])
    return prod(info.shape) * bits // 8


def _tokenizer(checkpoint: Checkpoint, raw: Mapping[str, Any]) -> TokenizerFacts:
    if checkpoint.tokenizer is None and not checkpoint.world and checkpoint.gguf is None:
        return TokenizerFacts(None, None, None, None, "no tokenizer.json: token ids only")
    tokenizer = open_tokenizer(checkpoint, raw)
    try:
        bos = None if tokenizer.bos_id is None else tokenizer.token_string(tokenizer.bos_id)
        kind, size, adds_bos = tokenizer.kind, tokenizer.vocab_size, tokenizer.adds_bos
    except TokenError as error:
        return TokenizerFacts(None, None, None, None, str(error))
    return TokenizerFacts(kind, size, bos, adds_bos, None)
