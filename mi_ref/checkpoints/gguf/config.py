"""A GGUF file's metadata as the ``config.json`` of the same model.

The families and their fence then read it as any other: a key of the architecture that is not
understood is passed on under its own name, so that loading refuses it and
``allow_unread_config=`` can let it through.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mi_ref.checkpoints.gguf.architectures import ARCHITECTURES, Architecture, llama_like
from mi_ref.checkpoints.gguf.file import GgufFile
from mi_ref.checkpoints.gguf.gemma import gemma_keys
from mi_ref.checkpoints.gguf.metadata import Metadata
from mi_ref.checkpoints.gguf.names import Layout
from mi_ref.checkpoints.gguf.rope import rope_scaling
from mi_ref.errors import ConfigError

_KINDS = {
    "adapter": "a LoRA adapter, which changes another model. Pass a model; to use both, merge them"
    " first (llama-export-lora)",
    "mmproj": "the vision or audio part of a multimodal model. Pass the file of the language model",
    "vocab": "a vocabulary without weights. Pass the file of the whole model",
    "imatrix": "an importance matrix for quantising. Pass the file of the model",
}
# Values that turn something off, and keys without arithmetic.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "attention.causal": (True,),
    "attention.clamp_kqv": (0.0,),
    "attention.max_alibi_bias": (0.0,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    "expert_shared_count": (0,),
    "expert_weights_scale": (0.0, 1.0),
    "expert_gating_func": (1,),
    "logit_scale": (0.0, 1.0),
    "pooling_type": (0,),
    "residual_scale": (0.0, 1.0),
    "embedding_scale": (0.0, 1.0),
    "tensor_data_layout": ("Meta AI original pth",),
}
_OPTIONAL = ("vocab_size", "attention.head_count_kv", "attention.key_length")
_DEFAULT_THETA = 10_000.0
_ORIGINAL = "original_max_position_embeddings"


@dataclass(frozen=True, slots=True)
class GgufConfig:
    """What a GGUF file says of its model."""

    raw: dict[str, Any]
    """As ``config.json`` would."""
    layout: Layout
    inferred: tuple[str, ...]
    """What the format leaves out, in sentences."""


def read_gguf_config(file: GgufFile, *, source: str) -> GgufConfig:
    """Return the config of the model in a file.

    Raises
    ------
    ConfigError
        If it is not a model, or of an unknown architecture, or its metadata lacks sizes or
        contradicts the tensors.
    """
    meta, arch = _identified(file, source)
    for key, values in _OFF.items():
        meta.take_if(key, *values)
    if not arch.model_type.startswith("gemma"):  # which none is made without
        meta.take_if("attention.sliding_window", 0)
    sizes = _sizes(meta)
    d_model, n_heads, n_key_value_heads, d_head = sizes
    raw = _plain_keys(meta, arch)
    if "attention.head_count_kv" in arch.keys:
        raw["num_key_value_heads"] = n_key_value_heads
    if "attention.key_length" in arch.keys:
        raw["head_dim"] = d_head
    meta.take_if("attention.head_count_kv", n_heads)
    meta.take_if("attention.key_length", d_model // n_heads)
    meta.take_if("attention.value_length", d_head)
    meta.take_if("rope.dimension_count_swa", d_head)
    raw |= _rotary(meta, arch, d_head, raw.get(arch.keys["context_length"]))
    raw |= {key: f"blk.0.{stem}" in file.tensors for key, stem in arch.tensors.items()}
    raw |= gemma_keys(meta, arch.model_type, d_model=d_model, n_heads=n_heads, d_head=d_head)
    raw |= _vocabulary(meta, raw)
    for sentence in arch.said:
        meta.infer(sentence)
    head = {"architectures": [arch.class_name], "model_type": arch.model_type}
    unread = {f"{meta.name}.{key}": value for key, value in meta.keys.items()}
    layout = Layout(n_heads, n_key_value_heads, d_head, arch.rotary_pairs, arch.unit_offset)
    return GgufConfig(head | raw | unread, layout, tuple(meta.inferred))


def _identified(file: GgufFile, source: str) -> tuple[Metadata, Architecture]:
    name = file.metadata.get("general.architecture")
    kind = "mmproj" if name == "clip" else str(file.metadata.get("general.type", "model"))
    if kind in _KINDS:
        raise ConfigError(f"{source} is {_KINDS[kind]}.")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise ConfigError(
            f"{source} is of the architecture {name!r}, which is not read from GGUF; expected one"
            f" of {', '.join(ARCHITECTURES)}. If the model's safetensors are of a supported family,"
            " load those."
        )
    meta = Metadata(file, name, source)
    if name not in ("llama", "mistral"):
        return meta, ARCHITECTURES[name]
    experts = bool(meta.keys.get("expert_count"))
    return meta, llama_like(experts=experts, window=bool(meta.keys.get("attention.sliding_window")))


def _sizes(meta: Metadata) -> tuple[int, int, int, int]:
    """Return d_model, n_heads, n_key_value_heads and d_head, which the tensors' layout needs."""
    n_layers = meta.size("block_count")
    if n_layers != meta.n_blocks:  # before anything is made for each layer
        raise meta.refuse(
            f"{meta.name}.block_count is {n_layers:,}, but the file holds tensors of"
            f" {meta.n_blocks} blocks. It is damaged, or a part of a model."
        )
    d_model, n_heads = meta.size("embedding_length"), meta.size("attention.head_count")
    n_key_value_heads = meta.size("attention.head_count_kv", n_heads)
    d_head = meta.size("attention.key_length", max(d_model // n_heads, 1))
    return d_model, n_heads, n_key_value_heads, d_head


def _plain_keys(meta: Metadata, arch: Architecture) -> dict[str, Any]:
    """Return the keys that only have another name, and those that the architecture implies."""
    missing = [
        f"{meta.name}.{key}"
        for key, name in arch.keys.items()
        if key not in meta.keys and key not in _OPTIONAL and name not in arch.implied
    ]
    if missing:
        raise meta.refuse(f"its metadata lacks {', '.join(missing)}. Convert the model again.")
    for key, value in arch.implied.items():
        if "act" in key:
            meta.infer(f"activation {value}, as in all {arch.model_type} models")
        elif key in arch.keys.values():
            given = next(stored for stored, name in arch.keys.items() if name == key)
            if given not in meta.keys:
                meta.infer(f"{key} {value}: the file gives none")
    found = {name: meta.take(key) for key, name in arch.keys.items() if key in meta.keys}
    return dict(arch.implied) | found


def _rotary(meta: Metadata, arch: Architecture, d_head: int, n_ctx: object) -> dict[str, Any]:
    """Return the keys of rotary embedding."""
    if arch.theta is None:
        return {}
    if "rope.freq_base" not in meta.keys:
        meta.infer(f"rotary base {_DEFAULT_THETA:,.0f}, the format's default")
    theta = meta.take("rope.freq_base", _DEFAULT_THETA)
    found: dict[str, Any] = {arch.theta: theta}
    dims = meta.keys.get("rope.dimension_count", d_head)
    if arch.partial is not None and type(dims) is int and 0 < dims <= d_head:
        meta.take("rope.dimension_count")
        part = dims / d_head
        # Its product with the width of a head is rounded down.
        exact = int(d_head * part) == dims
        found[arch.partial] = part if exact else math.nextafter(part, math.inf)
    else:
        meta.take_if("rope.dimension_count", d_head)
    scaling = rope_scaling(meta, theta=theta, n_ctx=n_ctx, dims=dims)
    if scaling is None:
        return found
    if scaling["rope_type"] == "longrope" and _ORIGINAL in scaling:
        found[_ORIGINAL] = scaling.pop(_ORIGINAL)  # Phi-3 has it outside
    return found | {"rope_scaling": scaling}


def _vocabulary(meta: Metadata, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Return the size of the vocabulary, and its special tokens."""
    file = meta.file
    found: dict[str, Any] = {"tie_word_embeddings": "output.weight" not in file.tensors}
    if embed := file.tensors.get("token_embd.weight"):
        tokens = file.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, list) and len(tokens) > embed.shape[0]:
            raise meta.refuse(
                f"its tokenizer has {len(tokens):,} tokens, its embedding only"
                f" {embed.shape[0]:,} rows: metadata and tensors are of different models."
            )
        found |= {"vocab_size": raw.get("vocab_size", embed.shape[0])}
    for key in ("bos_token_id", "eos_token_id"):
        value = file.metadata.get(f"tokenizer.ggml.{key}")
        found |= {} if value is None else {key: value}
    return found
