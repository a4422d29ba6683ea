"""The modules of a transformer block, and the names of their tensors in a family's checkpoints."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from mi_ref._typing import Array
from mi_ref.config.decoder import (
    MLP,
    Attention,
    Experts,
    GatedMLP,
    Layer,
    LayerNorm,
    NormKind,
    PlainMLP,
    QKNorm,
    ScoreCap,
)

Axis = tuple[str, int]
"""What an axis counts, and its length."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """Several modules that checkpoints store in one tensor, one after the other."""

    path: str
    slots: tuple[str, ...]
    per_head: bool
    """Whether they alternate by head: the first head of each, the second head of each, …"""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where and how checkpoints store a parameter that is not a module's weight or bias."""

    path: str
    """The tensor's full name within its block."""
    transposed: bool = False
    ones: int = 0
    """Number of leading axes of length one."""
    axis: int | None = None
    """If several parameters share the tensor, the axis along which they are concatenated; None if
    they are stacked along an additional first axis."""
    index: int = 0
    """This parameter's place among them."""
    count: int = 1
    """Number of parameters in the tensor."""

    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """Return the axes of the stored tensor, given the parameter's."""
        stored = list(reversed(axes) if self.transposed else axes)
        if self.count > 1 and self.axis is None:
            stored.insert(0, ("parts", self.count))
        elif self.count > 1 and self.axis is not None:
            label, size = stored[self.axis]
            stored[self.axis] = (f"{self.count} × {label} {size} ×", self.count * size)
        return (("one", 1),) * self.ones + tuple(stored)

    def part_of(self, tensor: Array) -> Array:
        """Return the parameter, as a view of the stored tensor."""
        for _ in range(self.ones):
            tensor = tensor[0, ...]
        if self.count > 1 and self.axis is None:
            tensor = tensor[self.index, ...]
        elif self.count > 1 and self.axis is not None:
            size = tensor.shape[self.axis] // self.count
            part = slice(self.index * size, (self.index + 1) * size)
            tensor = tensor[part, ...] if self.axis == 0 else tensor[:, part]
        return tensor.mT if self.transposed else tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNames:
    """Where a family's checkpoints store each module: its path without ``.weight`` or ``.bias``.

    In paths within a block, ``{layer}`` is the block's number and ``{expert}`` an expert's.
    """

    prefix: str
    """Start of all paths except `unembed`. Files of the model without its head omit it."""
    embed: str
    pos_embed: str | None
    ln_embed: str | None
    ln_final: str
    unembed: str
    block: str
    """Start of all paths in `modules`, `fused` and `stored`, after `prefix`."""
    modules: Mapping[str, str]
    """From slot of a `Module` to path."""
    fused: tuple[Fused, ...]
    stored: Mapping[str, Stored]
    """From slot of a `Parameter` to where and how it is stored."""
    transposed: bool
    """Whether linear maps are stored ``[d_in, d_out]``."""
    ignored: tuple[str, ...]
    """Tensors within a block that may be present and contain no parameters."""
    others: tuple[WeightNames, ...]
    """Other layouts of the family's checkpoints."""

    def found_in(self, tensors: Collection[str]) -> WeightNames:
        """Return the names that a file with these tensors uses: its layout, with prefix or not."""
        layouts = (self, *self.others)
        whole = [n for n in layouts if f"{n.prefix}{n.embed}.weight" in tensors]
        bare = [replace(n, prefix="") for n in layouts if f"{n.embed}.weight" in tensors]
        found = whole or bare or [self]
        # Layouts may share the embedding's name: choose the one with most tensors present.
        return max(found, key=lambda names: names._held(tensors))

    def _held(self, tensors: Collection[str]) -> int:
        """Return how many of the first block's parameters are among `tensors`."""
        block = self.prefix + self.block.format(layer=0)
        return sum(block + stored.path in tensors for stored in self.stored.values())

    def path(self, slot: str, layer: int, expert: int = 0) -> str:
        """Return the path of a block's module, fused or not."""
        fused = next((f.path for f in self.fused if slot in f.slots), None)
        path = self.modules[slot] if fused is None else fused
        return self.prefix + (self.block + path).format(layer=layer, expert=expert)

    def stored_path(self, slot: str, layer: int) -> str:
        """Return the name of the tensor that stores a block's `Parameter`."""
        return self.prefix + self.block.format(layer=layer) + self.stored[slot].path

    def spared(self, n_layers: int) -> set[str]:
        """Return the names of all tensors that may be present and contain no parameters."""
        paths = [self.prefix + self.block + path for path in self.ignored]
        return {path.format(layer=layer) for path in paths for layer in range(n_layers)}


@dataclass(frozen=True, slots=True)
class Module:
    """One linear map or norm of a block."""

    slot: str
    out: Axis
    """Outputs; the width of a norm."""
    into: Axis | None
    """Inputs; None for a norm."""
    bias: bool
    expert: int = 0


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a block that is not a module's weight or bias."""

    slot: str
    axes: tuple[Axis, ...]


def modules_of(layer: Layer, d_model: int) -> Iterator[Module]:
    """Yield every module that a transformer block's structure requires."""
    model = ("d_model", d_model)
    for slot, norm in (("ln1", layer.ln1), ("ln1_post", layer.ln1_post)):
        yield from _norm(slot, norm, model)
    yield from _attention(layer.attn, model)
    for slot, norm in (("ln2", layer.ln2), ("ln2_post", layer.ln2_post)):
        yield from _norm(slot, norm, model)
    yield from _mlp(layer.mlp, model)


def _attention(attn: Attention, model: Axis) -> Iterator[Module]:
    n_kv = attn.n_key_value_heads
    query = (f"n_heads {attn.n_heads} × d_head {attn.d_head}", attn.n_heads * attn.d_head)
    key = (f"n_key_value_heads {n_kv} × d_head {attn.d_head}", n_kv * attn.d_head)
    yield Module("query", query, model, attn.bias_qkv)
    yield Module("key", key, model, attn.bias_qkv)
    yield Module("value", key, model, attn.bias_qkv)
    for extra in attn.extras:
        match extra:
            case QKNorm(norm=norm, per_head=per_head):
                head = ("d_head", attn.d_head)
                yield from _norm("q_norm", norm, head if per_head else query)
                yield from _norm("k_norm", norm, head if per_head else key)
            case ScoreCap():
                pass
            case _:
                assert_never(extra)
    yield Module("out", model, query, attn.bias_out)


def _mlp(mlp: MLP, model: Axis) -> Iterator[Module]:
    neurons = ("d_mlp", mlp.d_mlp)
    match mlp:
        case GatedMLP(bias=bias):
            yield Module("mlp_gate", neurons, model, bias)
            yield Module("mlp_in", neurons, model, bias)
            yield Module("mlp_out", model, neurons, bias)
        case PlainMLP(bias=bias):
            yield Module("mlp_in", neurons, model, bias)
            yield Module("mlp_out", model, neurons, bias)
        case Experts(n_experts=n_experts):
            yield Module("router", ("n_experts", n_experts), model, False)
            for expert in range(n_experts):
                yield Module("expert_gate", neurons, model, False, expert)
                yield Module("expert_in", neurons, model, False, expert)
                yield Module("expert_out", model, neurons, False, expert)
        case _:
            assert_never(mlp)


def _norm(slot: str, norm: NormKind | None, width: Axis) -> Iterator[Module]:
    if norm is not None:
        yield Module(slot, width, None, isinstance(norm, LayerNorm))
