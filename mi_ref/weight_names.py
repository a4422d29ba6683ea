"""Which modules a decoder has, and where a family's checkpoints keep each of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

from mi_ref._typing import Array
from mi_ref.config import MLP, Attention, Experts, GatedMLP, Layer, LayerNorm, NormKind

Axis = tuple[str, int]
"""What an axis counts, and how many there are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fused:
    """Several modules that checkpoints keep in one tensor, one after the other."""

    path: str
    slots: tuple[str, ...]
    per_head: bool
    """Whether they take turns head by head: first head of each, second head of each, …"""


@dataclass(frozen=True, slots=True)
class Stored:
    """Where checkpoints keep a parameter that is no module's weight or bias, and in what form."""

    path: str
    """The tensor's whole name below its block."""
    transposed: bool = False
    ones: int = 0
    """Axes of length one that come before its own."""
    axis: int | None = None
    """If it is one of several in a tensor, the axis along which these follow each other; None for
    an axis of their own, before the others."""
    index: int = 0
    """Which of them."""
    count: int = 1
    """How many they are."""

    def axes(self, axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
        """Return the axes of the stored tensor, given the parameter's."""
        stored = list(reversed(axes) if self.transposed else axes)
        if self.count > 1 and self.axis is None:
            stored.insert(0, ("parts", self.count))
        elif self.count > 1 and self.axis is not None:
            label, size = stored[self.axis]
            stored[self.axis] = (f"{self.count} × {label} {size} ×", self.count * size)
        return (("one", 1),) * self.ones + tuple(stored)

    def take(self, tensor: Array) -> Array:
        """Return the parameter, a view of the stored tensor."""
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
    """Where a family's checkpoints keep each module: its path without ``.weight`` or ``.bias``.

    In paths below a block, ``{layer}`` stands for its number and ``{expert}`` for an expert's.
    """

    prefix: str
    """Of all paths but `unembed`. Files of the bare model, without its head, leave it out."""
    embed: str
    pos_embed: str | None
    ln_embed: str | None
    ln_final: str
    unembed: str
    block: str
    """Of all paths in `modules`, `fused` and `stored`."""
    modules: Mapping[str, str]
    """Slot of a `Module` of `modules_of` to path."""
    fused: tuple[Fused, ...]
    stored: Mapping[str, Stored]
    """Slot of a `Parameter` of `modules_of` to where and how it is kept."""
    transposed: bool
    """Whether linear maps are stored ``[d_in, d_out]``."""
    ignored: tuple[str, ...]
    """Tensors below a block that may be present and carry nothing."""
    others: tuple[WeightNames, ...]
    """Other layouts in which the family's checkpoints come."""

    def found_in(self, tensors: Collection[str]) -> WeightNames:
        """Return the names that a file with those tensors uses: which layout, prefix or not."""
        layouts = (self, *self.others)
        whole = [n for n in layouts if f"{n.prefix}{n.embed}.weight" in tensors]
        bare = [replace(n, prefix="") for n in layouts if f"{n.embed}.weight" in tensors]
        found = whole or bare or [self]
        # Of several layouts with one embedding, the one of which most is there.
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
        """Return the name of the tensor that has a block's `Parameter`."""
        return self.prefix + self.block.format(layer=layer) + self.stored[slot].path

    def spared(self, n_layers: int) -> set[str]:
        """Return the names of all tensors that may be present and carry nothing."""
        paths = [self.prefix + self.block + path for path in self.ignored]
        return {path.format(layer=layer) for path in paths for layer in range(n_layers)}


@dataclass(frozen=True, slots=True)
class Module:
    """One linear map or norm of a block."""

    slot: str
    out: Axis
    """Of a norm, its width."""
    into: Axis | None
    """None for a norm."""
    bias: bool
    expert: int = 0


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a block that is no module's weight or bias."""

    slot: str
    axes: tuple[Axis, ...]


def modules_of(layer: Layer, d_model: int) -> Iterator[Module]:
    """Yield every module that a transformer block's structure asks for."""
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
    if attn.qk_norm is not None:
        head = ("d_head", attn.d_head)
        per_head = attn.qk_norm.per_head
        yield from _norm("q_norm", attn.qk_norm.norm, head if per_head else query)
        yield from _norm("k_norm", attn.qk_norm.norm, head if per_head else key)
    yield Module("out", model, query, attn.bias_out)


def _mlp(mlp: MLP, model: Axis) -> Iterator[Module]:
    neurons = ("d_mlp", mlp.d_mlp)
    if isinstance(mlp, Experts):
        yield Module("router", ("n_experts", mlp.n_experts), model, False)
        for expert in range(mlp.n_experts):
            yield Module("expert_gate", neurons, model, False, expert)
            yield Module("expert_in", neurons, model, False, expert)
            yield Module("expert_out", model, neurons, False, expert)
        return
    if isinstance(mlp, GatedMLP):
        yield Module("mlp_gate", neurons, model, mlp.bias)
    yield Module("mlp_in", neurons, model, mlp.bias)
    yield Module("mlp_out", model, neurons, mlp.bias)


def _norm(slot: str, norm: NormKind | None, width: Axis) -> Iterator[Module]:
    if norm is not None:
        yield Module(slot, width, None, isinstance(norm, LayerNorm))
