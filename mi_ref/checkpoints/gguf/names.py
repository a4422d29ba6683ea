"""Where each tensor of a GGUF file goes in a HuggingFace checkpoint, and what has to be undone.

llama.cpp's converter permutes the rows of queries and keys of some architectures, adds one to
Gemma's norms, transposes GPT-2's linear maps, regroups GPT-NeoX's fused queries, keys and values,
and stacks experts. A tensor is found by its slot in `mi_ref.families.reading.weight_names`: in GGUF
a slot has the same name in every architecture, and the families know their own names.

Source: llama.cpp ``convert_hf_to_gguf.py``, ``modify_tensors`` of each model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from mi_ref.checkpoints.gguf.header import StoredTensor
from mi_ref.families.reading.weight_names import WeightNames

Undo: TypeAlias = Callable[[Any], Any]
"""From an array as the file has it to the one of the HuggingFace checkpoint."""

_SLOTS = {
    "attn_norm": "ln1",
    "attn_q": "query",
    "attn_k": "key",
    "attn_v": "value",
    "attn_qkv": "query",
    "attn_output": "out",
    "attn_q_norm": "q_norm",
    "attn_k_norm": "k_norm",
    "post_attention_norm": "ln1_post",
    "ffn_norm": "ln2",
    "ffn_gate": "mlp_gate",
    "ffn_up": "mlp_in",
    "ffn_down": "mlp_out",
    "post_ffw_norm": "ln2_post",
    "ffn_gate_inp": "router",
    "ffn_gate_exps": "expert_gate",
    "ffn_up_exps": "expert_in",
    "ffn_down_exps": "expert_out",
}
_BLOCK = re.compile(r"blk\.(\d+)\.(\w+)\.(weight|bias)")
_TOP = re.compile(r"(token_embd|position_embd|output_norm|output)\.(weight|bias)")
READ_AS_CONFIG = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")
"""Tensors that HuggingFace keeps in ``config.json``."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the converter lays an architecture's tensors out."""

    n_heads: int
    n_key_value_heads: int
    d_head: int
    rotary_pairs: bool
    """Whether rotary pairs lie side by side, so that rows of queries and keys were permuted."""
    unit_offset: bool
    """Whether one was added to the gains of norms."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a tensor of the HuggingFace checkpoint is made of."""

    stored: str
    """Name in the GGUF file."""
    shape: tuple[int, ...]
    """After `undo`."""
    rows: tuple[int, int]
    """Which rows of the stored tensor, flattened to two axes."""
    undo: tuple[Undo, ...]


def origins(
    names: WeightNames, layout: Layout, tensors: Mapping[str, StoredTensor]
) -> dict[str, Origin]:
    """Return every tensor of the HuggingFace checkpoint by its name there.

    A tensor that no slot is known for keeps its name, under which it will be refused as unused.
    """
    found: dict[str, Origin] = {}
    for tensor in tensors.values():
        if tensor.name in READ_AS_CONFIG:
            continue
        for name, origin in _of(names, layout, tensor):
            # Two tensors for one place: the second keeps its name and is refused.
            found[tensor.name if name in found else name] = origin
    return found


def _of(names: WeightNames, layout: Layout, tensor: StoredTensor) -> Iterator[tuple[str, Origin]]:
    if match := _TOP.fullmatch(tensor.name):
        top = {
            "token_embd": names.prefix + names.embed,
            "position_embd": None if names.pos_embed is None else names.prefix + names.pos_embed,
            "output_norm": names.prefix + names.ln_final,
            "output": names.unembed,
        }[match[1]]
        undo = _norm(layout) if match[0] == "output_norm.weight" else ()
        yield tensor.name if top is None else f"{top}.{match[2]}", _whole(tensor, undo)
        return
    match = _BLOCK.fullmatch(tensor.name)
    slot = None if match is None else _SLOTS.get(match[2])
    if match is None or slot is None or not _has(names, slot):
        yield tensor.name, _whole(tensor, ())
        return
    layer, stem, part = int(match[1]), match[2], match[3]
    if stem.endswith("_exps"):
        yield from _experts(names, slot, layer, tensor)
    elif stem == "attn_qkv" and not any("query" in fused.slots for fused in names.fused):
        yield from _split(names, layout, layer, part, tensor)
    else:
        undo = tuple(_undo(names, layout, stem, part))
        shape = tensor.shape[::-1] if _transposes(names, stem, part) else tensor.shape
        yield f"{names.path(slot, layer)}.{part}", _whole(tensor, undo, shape)


def _has(names: WeightNames, slot: str) -> bool:
    return slot in names.modules or any(slot in fused.slots for fused in names.fused)


def _whole(
    tensor: StoredTensor, undo: tuple[Undo, ...], shape: tuple[int, ...] | None = None
) -> Origin:
    return Origin(tensor.name, shape or tensor.shape, (0, _rows(tensor.shape)), undo)


def _rows(shape: tuple[int, ...]) -> int:
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows


def _experts(
    names: WeightNames, slot: str, layer: int, tensor: StoredTensor
) -> Iterator[tuple[str, Origin]]:
    """Yield each expert of a stack [expert, out, in]."""
    shape = tensor.shape[1:]
    rows = _rows(tensor.shape) // tensor.shape[0]
    for expert in range(tensor.shape[0]):
        held = expert * rows, (expert + 1) * rows
        yield f"{names.path(slot, layer, expert)}.weight", Origin(tensor.name, shape, held, ())


def _split(
    names: WeightNames, layout: Layout, layer: int, part: str, tensor: StoredTensor
) -> Iterator[tuple[str, Origin]]:
    """Yield query, key and value of one tensor, for a family that keeps them apart."""
    start, inner = 0, tensor.shape[1:]
    for slot, heads in (
        ("query", layout.n_heads),
        ("key", layout.n_key_value_heads),
        ("value", layout.n_key_value_heads),
    ):
        size = heads * layout.d_head
        cut = partial(_cut, start=start, stop=start + size)
        origin = _whole(tensor, (cut,), (size, *inner))
        yield f"{names.path(slot, layer)}.{part}", origin
        start += size


def _undo(names: WeightNames, layout: Layout, stem: str, part: str) -> Iterator[Undo]:
    if stem in ("attn_q", "attn_k") and layout.rotary_pairs:
        heads = layout.n_heads if stem == "attn_q" else layout.n_key_value_heads
        yield partial(_halves, heads=heads)
    if stem == "attn_qkv" and any(fused.per_head for fused in names.fused):
        yield partial(_by_head, heads=layout.n_heads)
    if stem.endswith("norm") and part == "weight":
        yield from _norm(layout)
    if _transposes(names, stem, part):
        yield _transpose


def _norm(layout: Layout) -> tuple[Undo, ...]:
    return (_less_one,) if layout.unit_offset else ()


def _transposes(names: WeightNames, stem: str, part: str) -> bool:
    return names.transposed and part == "weight" and not stem.endswith("norm")


def _halves(x: Any, heads: int) -> Any:
    """Put the first of all rotary pairs before the second: [head, pair, 2, …] -> [head, 2, …]."""
    return x.reshape(heads, -1, 2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)


def _by_head(x: Any, heads: int) -> Any:
    """Let query, key and value take turns by head: [3, head, …] -> [head, 3, …]."""
    return x.reshape(3, heads, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def _cut(x: Any, start: int, stop: int) -> Any:
    return x[start:stop]


def _less_one(x: Any) -> Any:
    return x - 1.0


def _transpose(x: Any) -> Any:
    return x.T
