"""What a checkpoint is and whether it would load, from its headers alone: no weight is read."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from mi_ref.config import DecoderConfig
from mi_ref.errors import TokenError, WeightError
from mi_ref.families import FAMILIES
from mi_ref.fitting import Fit, fit, nearest
from mi_ref.hub import Checkpoint, find_checkpoint
from mi_ref.loading import open_tokenizer, read_config_file
from mi_ref.tables import Cell, Table
from mi_ref.weights import TensorInfo, Weights

_SHOWN = 8
"""Tensor differences that an error message lists; an inspection lists all."""


@dataclass(frozen=True, slots=True)
class TokenizerFacts:
    """What a checkpoint's tokenizer does."""

    kind: str | None
    """``BPE``, ``Unigram``, …; None without one that can be read, which only text needs."""
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
    family: str
    """The family it was read as: its own, or the nearest."""
    supported: bool
    """Whether its ``model_type`` is a family of this package."""
    config: DecoderConfig | None
    """None where the family is unknown or the config faulty: sizes would be guesses."""
    n_params: int
    """Numbers in the file, those that carry nothing left out."""
    n_tensors: int
    stored: Mapping[str, int]
    """Bytes by the dtype they are stored in, as safetensors spells it."""
    tokenizer: TokenizerFacts
    config_faults: tuple[str, ...]
    unread: Mapping[str, Any]
    """Keys of ``config.json`` that the family does not read."""
    tensor_faults: tuple[str, ...]
    """What is wrong with the tensors, once for all layers."""

    @property
    def refusals(self) -> tuple[str, ...]:
        """Why loading would stop, all reasons at once; empty if it would not."""
        unknown = () if self.supported else (_unsupported(self.model_type, self.family),)
        unread = (
            f"{key}={value!r} is not read by {self.family}" for key, value in self.unread.items()
        )
        return (*unknown, *self.config_faults, *unread, *self.tensor_faults)

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return {
            "format": "mi_ref.inspection/1",
            "name": self.name,
            "revision": self.revision,
            "model_type": self.model_type,
            "family": self.family,
            "supported": self.supported,
            "loads": not self.refusals,
            "refusals": list(self.refusals),
            "sizes": None if self.config is None else _sizes(self.config),
            "n_params": self.n_params,
            "n_tensors": self.n_tensors,
            "stored_bytes": dict(self.stored),
            "memory_bytes": {"float32": 4 * self.n_params, "float64": 8 * self.n_params},
            "tokenizer": asdict(self.tokenizer),
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `record` as JSON: whole or not at all."""
        from mi_ref.provenance import write_json

        write_json(path, self.record())

    def table(self) -> Table:
        """Return what it is, then whether it loads or each reason why not."""
        table = Table(["checkpoint", self.name], flexible=[self.name])
        for label, value in _lines(self):
            table.add(Cell((label, "dim")), value)
        count = len(self.refusals)
        if not count:
            table.add("loads", Cell(("yes, as far as headers show", "bold green")))
        for number, reason in enumerate(self.refusals, start=1):
            label = Cell((f"refused {number}/{count}", "bold red"))
            table.add(label, reason)
        return table

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
    found = nearest(raw, tensors) if known is None else fit(known, raw, tensors)
    stored = _stored(tensors or {}, found)
    return Inspection(
        name=checkpoint.name,
        revision=checkpoint.revision,
        model_type=None if model_type is None else str(model_type),
        family=found.family.model_type,
        supported=known is not None,
        config=None if known is None or found.faults else found.config,
        n_params=sum(count for count, _ in stored.values()),
        n_tensors=len(tensors or {}),
        stored={dtype: size for dtype, (_, size) in stored.items()},
        tokenizer=_tokenizer(checkpoint, raw),
        config_faults=found.faults,
        unread=found.unread,
        tensor_faults=(*damage, *found.tensor_faults),
    )


def unknown_family(raw: Mapping[str, Any], checkpoint: Checkpoint) -> str:
    """Return the message for a ``model_type`` without a family: the nearest one, and what differs."""
    tensors, damage = _tensors(checkpoint)
    found = nearest(raw, tensors)
    family = found.family.model_type
    unread = [f"it does not read {key}={_brief(value)}" for key, value in found.unread.items()]
    wrong = [*damage, *found.tensor_faults]
    differs = [*found.faults, *unread, *wrong[:_SHOWN]]
    if len(wrong) > _SHOWN:
        differs.append(
            f"and {len(wrong) - _SHOWN} more about tensors: mi-ref inspect {checkpoint.name}"
        )
    listed = "\n  ".join(differs) or "nothing that config and headers show"
    return (
        f"{checkpoint.config}: {_unsupported(raw.get('model_type'), family)}. Running it as"
        f" {family} could give plausible wrong numbers, so loading stops here. What differs from"
        f" {family}:\n  {listed}"
    )


def _unsupported(model_type: object, nearest_family: str) -> str:
    missing = "no model_type is given" if model_type is None else f"model_type {model_type!r}"
    return (
        f"{missing} is not supported; supported: {', '.join(FAMILIES)}; nearest: {nearest_family}"
    )


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tensors(checkpoint: Checkpoint) -> tuple[Mapping[str, TensorInfo] | None, list[str]]:
    """Return the tensors' headers, or why they cannot be read."""
    if checkpoint.headers is not None:
        return checkpoint.headers, []
    try:
        # Maps the files and reads their headers, no more.
        return Weights(checkpoint.weights, checkpoint.weight_map).info, []
    except WeightError as error:
        return None, [str(error)]


def _stored(tensors: Mapping[str, TensorInfo], found: Fit) -> dict[str, tuple[int, int]]:
    """Return how many numbers, in how many bytes, are stored in each dtype."""
    stored: dict[str, tuple[int, int]] = {}
    ignored = [
        re.escape(name).replace(r"\{layer\}", r"\d+") for name in found.family.weight_names.ignored
    ]
    for name, info in tensors.items():
        if not any(re.fullmatch(pattern, name) for pattern in ignored):
            count, size = stored.get(info.dtype, (0, 0))
            # F8_E4M3 has 8 bits a number, BOOL names none and has 8 too.
            bits = int((re.search(r"\d+", info.dtype) or ["8"])[0])
            here = prod(info.shape)
            stored[info.dtype] = (count + here, size + here * bits // 8)
    return stored


def _tokenizer(checkpoint: Checkpoint, raw: Mapping[str, Any]) -> TokenizerFacts:
    if checkpoint.tokenizer is None:
        return TokenizerFacts(None, None, None, None, "no tokenizer.json: token ids only")
    tokenizer = open_tokenizer(checkpoint, dict(raw))
    try:
        bos = None if tokenizer.bos_id is None else tokenizer.token_string(tokenizer.bos_id)
        size, adds_bos = tokenizer.vocab_size, tokenizer.adds_bos
    except TokenError as error:
        return TokenizerFacts(None, None, None, None, str(error))
    kind = json.loads(checkpoint.tokenizer.read_bytes())["model"].get("type")
    return TokenizerFacts(kind, size, bos, adds_bos, None)


def _sizes(cfg: DecoderConfig) -> dict[str, Any]:
    attn, mlp = cfg.layers[0].attn, cfg.layers[0].mlp
    return {
        "n_layers": cfg.n_layers,
        "d_model": cfg.d_model,
        "n_heads": cfg.n_heads,
        "n_key_value_heads": cfg.n_key_value_heads,
        "d_head": cfg.d_head,
        "d_mlp": cfg.d_mlp,
        "act_fn": cfg.act_fn,
        "d_vocab": cfg.d_vocab,
        "n_ctx": cfg.n_ctx,
        "window": None,
        "rotary": {
            "kind": type(attn.rope).__name__.removesuffix("Rope").lower(),
            **asdict(attn.rope),
        },
        "norm": cfg.normalization_type,
        "eps": cfg.eps,
        "biases": {"qkv": attn.bias_qkv, "attn_out": attn.bias_out, "mlp": mlp.bias},
        "tied": cfg.tied,
    }


def _lines(found: Inspection) -> Iterator[tuple[str, str]]:
    """Yield what a table says of a checkpoint, line by line."""
    if found.revision is not None:
        yield "revision", found.revision
    read_as = "" if found.supported else f" (unknown; nearest family: {found.family})"
    yield "model_type", f"{found.model_type}{read_as}"
    if found.config is not None:
        yield from _size_lines(_sizes(found.config))
    in_memory = ", ".join(f"{_bytes(found.n_params * n)} as float{8 * n}" for n in (4, 8))
    stored = ", ".join(f"{_bytes(size)} as {dtype}" for dtype, size in found.stored.items())
    yield "parameters", f"{found.n_params:,} in {found.n_tensors} tensors"
    yield "stored", stored or "unknown"
    yield "in memory", in_memory
    tokenizer = found.tokenizer
    bos = f"{tokenizer.bos!r} {'' if tokenizer.adds_bos else 'not '}added before a text"
    text = f"{tokenizer.kind}, {tokenizer.size or 0:,} tokens, {bos if tokenizer.bos else 'no BOS'}"
    yield "tokenizer", tokenizer.problem or text


def _size_lines(sizes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "layers", f"{sizes['n_layers']}, d_model {sizes['d_model']:,}"
    yield (
        "attention",
        f"{sizes['n_heads']} query heads, {sizes['n_key_value_heads']} key and value heads,"
        f" d_head {sizes['d_head']}, {'no window' if sizes['window'] is None else sizes['window']}",
    )
    yield "MLP", f"gated, d_mlp {sizes['d_mlp']:,}, {sizes['act_fn']}"
    numbers = dict(sizes["rotary"])
    kind = numbers.pop("kind")
    yield "rotary", f"{kind}: " + ", ".join(f"{key} {value}" for key, value in numbers.items())
    yield "norm", f"{sizes['norm']}, eps {sizes['eps']}"
    biases = [name for name, present in sizes["biases"].items() if present]
    yield "biases", ", ".join(biases) or "none"
    tied = "tied to" if sizes["tied"] else "apart from"
    yield "vocabulary", f"d_vocab {sizes['d_vocab']:,}, unembedding {tied} the embedding"
    yield "context", f"{sizes['n_ctx']:,} positions"


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}" if unit != "B" else f"{count} B"
        size /= 1000
    return f"{size:.4g} TB"
