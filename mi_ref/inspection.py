"""What a checkpoint is and whether it would load, from its headers alone: no weight is read."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from mi_ref.auto_config import inferred, lookalike
from mi_ref.checkpoint import Checkpoint
from mi_ref.config import DecoderConfig
from mi_ref.errors import ConfigError, TokenError, WeightError
from mi_ref.families import FAMILIES, Family
from mi_ref.fitting import Fit, fit, nearest
from mi_ref.hub import find_checkpoint
from mi_ref.loading import open_tokenizer, read_config_file
from mi_ref.tables import Table
from mi_ref.weights import TensorInfo, Weights


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a checkpoint's tokenizer does."""

    kind: str | None
    """``BPE``, ``World``, …; None without one that can be read, which only text needs."""
    size: int | None
    bos: str | None
    """The token that starts a sequence."""
    adds_bos: bool | None
    """Whether a text gets it unasked."""
    problem: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What a checkpoint is, and everything for which it would be refused; prints as a table."""

    name: str
    revision: str | None
    model_type: str | None
    fit: Fit
    """How it fits its family; or, if its ``model_type`` is unknown, the nearest one."""
    supported: bool
    """Whether its ``model_type`` is a family of this package, or its structure was inferred."""
    damage: str | None
    """Why the tensors' headers cannot be read; None if they can."""
    n_tensors: int
    stored: Mapping[str, tuple[int, int]]
    """Numbers and bytes by the dtype they are stored in; what carries nothing is left out."""
    tokenizer: TokenizerFacts

    @property
    def config(self) -> DecoderConfig | None:
        """What it is; None where the family is unknown or the config faulty: no guesses."""
        return self.fit.config if self.supported and not self.fit.faults else None

    @property
    def n_params(self) -> int:
        """Numbers in the weights."""
        return sum(count for count, _ in self.stored.values())

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why loading would stop, all reasons at once; empty if it would not."""
        damage = () if self.damage is None else (self.damage,)
        unknown = () if self.supported else (_unsupported(self.model_type),)
        return (*unknown, *damage, *self.fit.sentences(names_only=not self.supported))

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        from mi_ref.inspection_table import sizes

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
        """Write `record` as JSON: whole or not at all."""
        from mi_ref.provenance import write_json

        write_json(path, self.record())

    def table(self) -> Table:
        """Return what it is, then whether it loads or each reason why not."""
        from mi_ref.inspection_table import inspection_table

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
    token: str | bool | None = None,
    local_files_only: bool = False,
) -> Inspection:
    """Look at a checkpoint without reading, or downloading, its weights.

    Parameters
    ----------
    name_or_path, revision, token, local_files_only
        As for :func:`mi_ref.from_pretrained`.

    Returns
    -------
    Inspection
        With every fault that loading would meet, except values that are not finite.

    Raises
    ------
    HubError, ConfigError
        If there is no whole checkpoint to look at, or ``config.json`` is no JSON object.
    """
    checkpoint = find_checkpoint(
        name_or_path,
        revision=revision,
        token=token,
        local_files_only=local_files_only,
        headers_only=True,
    )
    raw = read_config_file(checkpoint.config)
    model_type = raw.get("model_type")
    tensors, damage = _tensors(checkpoint)
    known = FAMILIES.get(model_type) if isinstance(model_type, str) else None
    guessed = inferred(raw, tensors) if known is None else None
    if known is not None:
        found = fit(known, raw, tensors)
    elif guessed is not None:
        found = guessed
    else:
        found = nearest(raw, tensors)
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


def infer_or_refuse(raw: Mapping[str, Any], checkpoint: Checkpoint) -> Family:
    """Return a family inferred from config and tensors, with a warning that says what was.

    Raises
    ------
    ConfigError
        If they do not fit the decoder exactly, with the nearest family and what differs from it.
    """
    tensors, damage = _tensors(checkpoint)
    found = inferred(raw, tensors)
    if found is None:
        raise ConfigError(_unknown_family(raw, checkpoint, tensors, damage))
    listed = "\n  ".join(found.config.inferred)
    warnings.warn(
        f"{checkpoint.config}: {_unsupported(raw.get('model_type'))}. Config and tensors fit the"
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
        f"{checkpoint.config}: {_unsupported(raw.get('model_type'))}. The nearest is {family}, but"
        " running one as the other could give plausible wrong numbers, so loading stops here."
        f" What differs from {family}:\n  {listed}"
    )


def _unsupported(model_type: object) -> str:
    given = "an absent model_type" if model_type is None else f"model_type {model_type!r}"
    return f"{given} is not supported (supported: {', '.join(FAMILIES)})"


def _tensors(checkpoint: Checkpoint) -> tuple[Mapping[str, TensorInfo] | None, str | None]:
    """Return the tensors' headers, or why they cannot be read."""
    if checkpoint.headers is not None:
        return checkpoint.headers, None
    try:
        # Maps the files and reads their headers, no more.
        return Weights(checkpoint.weights, checkpoint.weight_map).info, None
    except WeightError as error:
        return None, str(error)


def _stored(tensors: Mapping[str, TensorInfo], found: Fit) -> dict[str, tuple[int, int]]:
    """Return how many numbers, in how many bytes, are stored in each dtype."""
    stored: dict[str, tuple[int, int]] = {}
    names = found.family.weight_names.found_in(tensors)
    spared = names.spared(found.config.n_layers)
    for name, info in tensors.items():
        if name not in spared:
            count, size = stored.get(info.dtype, (0, 0))
            # F8_E4M3 has 8 bits a number, BOOL names none and has 8 too.
            bits = int((re.search(r"\d+", info.dtype) or ["8"])[0])
            here = prod(info.shape)
            stored[info.dtype] = (count + here, size + here * bits // 8)
    return stored


def _tokenizer(checkpoint: Checkpoint, raw: Mapping[str, Any]) -> TokenizerFacts:
    if checkpoint.tokenizer is None and not checkpoint.world:
        return TokenizerFacts(None, None, None, None, "no tokenizer.json: token ids only")
    tokenizer = open_tokenizer(checkpoint, dict(raw))
    try:
        bos = None if tokenizer.bos_id is None else tokenizer.token_string(tokenizer.bos_id)
        kind, size, adds_bos = tokenizer.kind, tokenizer.vocab_size, tokenizer.adds_bos
    except TokenError as error:
        return TokenizerFacts(None, None, None, None, str(error))
    return TokenizerFacts(kind, size, bos, adds_bos, None)
