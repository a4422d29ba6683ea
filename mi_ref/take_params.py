"""How a decoder's parameters are taken from a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from mi_ref._typing import Array, Namespace
from mi_ref.config import DecoderConfig, Experts, Layer, NormKind, RecurrentLayer, RMSNorm
from mi_ref.params import (
    DecoderParams,
    ExpertsParams,
    LayerParams,
    Linear,
    MLPParams,
    Norm,
    RecurrentLayerParams,
)
from mi_ref.take_recurrent import take_recurrent_layer
from mi_ref.weight_names import Fused, Module, WeightNames, modules_of

Take: TypeAlias = Callable[[str], Array]


def take_params(
    cfg: DecoderConfig, names: WeightNames, take: Take, available: Collection[str], xp: Namespace
) -> DecoderParams:
    """Take every parameter; call `mi_ref.tensor_check.check_tensors` first.

    Parameters
    ----------
    cfg : DecoderConfig
        The architecture.
    names : WeightNames
        The family's names.
    take : callable
        Returns the backend's array for a tensor name.
    available : collection of str
        The checkpoint's tensors.
    xp
        The backend's namespace.
    """
    names = names.found_in(available)
    taker = Taker(names, take, available, xp)
    embed = take(f"{names.prefix}{names.embed}.weight")
    own = f"{names.unembed}.weight" in available
    return DecoderParams(
        embed=embed,
        pos_embed=(
            take(f"{names.prefix}{names.pos_embed}.weight") if cfg.learned_positions else None
        ),
        ln_embed=(
            None
            if cfg.ln_embed is None
            else taker.norm(f"{names.prefix}{names.ln_embed}", cfg.ln_embed)
        ),
        layers=tuple(taker.layers(cfg)),
        ln_final=taker.norm(names.prefix + names.ln_final, cfg.ln_final),
        unembed=Linear(
            take(f"{names.unembed}.weight") if own else embed, taker.bias(names.unembed)
        ),
    )


@dataclass(frozen=True, slots=True)
class Taker:
    """A checkpoint's tensors by the names of its family."""

    names: WeightNames
    take: Take
    available: Collection[str]
    xp: Namespace

    def layers(self, cfg: DecoderConfig) -> Iterator[LayerParams | RecurrentLayerParams]:
        """Yield the parameters of every block."""
        for number, layer in enumerate(cfg.layers):
            if isinstance(layer, RecurrentLayer):
                yield take_recurrent_layer(self, layer, number)
            else:
                yield self.layer(layer, cfg.d_model, number)

    def layer(self, layer: Layer, d_model: int, number: int) -> LayerParams:
        """Return the parameters of one block."""
        modules = {(m.slot, m.expert): m for m in modules_of(layer, d_model)}
        linears = {
            key: self.linear(self.names.path(*_place(key, number)))
            for key, module in modules.items()
            if module.into is not None and not self._is_fused(module.slot)
        }
        for fused in self.names.fused:
            parts = [modules[slot, 0] for slot in fused.slots if (slot, 0) in modules]
            if parts:
                whole = self.linear(self.names.path(fused.slots[0], number))
                linears |= self.split(whole, fused, parts, layer)
        qk_norm = layer.attn.qk_norm

        def norm(slot: str, kind: NormKind | None) -> Norm | None:
            return None if kind is None else self.norm(self.names.path(slot, number), kind)

        return LayerParams(
            ln1=norm("ln1", layer.ln1),
            query=linears["query", 0],
            key=linears["key", 0],
            value=linears["value", 0],
            q_norm=norm("q_norm", None if qk_norm is None else qk_norm.norm),
            k_norm=norm("k_norm", None if qk_norm is None else qk_norm.norm),
            out=linears["out", 0],
            ln1_post=norm("ln1_post", layer.ln1_post),
            ln2=norm("ln2", layer.ln2),
            mlp=_mlp(layer, linears),
            ln2_post=norm("ln2_post", layer.ln2_post),
        )

    def parameter(self, slot: str, number: int) -> Array:
        """Return a block's parameter that is no module's."""
        stored = self.names.stored[slot]
        return stored.take(self.take(self.names.stored_path(slot, number)))

    def linear(self, path: str) -> Linear:
        """Return the module stored at `path`."""
        weight = self.take(f"{path}.weight")
        return Linear(weight.mT if self.names.transposed else weight, self.bias(path))

    def bias(self, path: str) -> Array | None:
        """Return the bias stored at `path`, if there is one."""
        return self.take(f"{path}.bias") if f"{path}.bias" in self.available else None

    def norm(self, path: str, kind: NormKind) -> Norm:
        """Return the norm stored at `path`."""
        weight = self.take(f"{path}.weight")
        offset = isinstance(kind, RMSNorm) and kind.unit_offset
        return Norm(weight + 1.0 if offset else weight, self.bias(path))

    def split(
        self, whole: Linear, fused: Fused, parts: list[Module], layer: Layer
    ) -> dict[tuple[str, int], Linear]:
        """Cut a fused module into its parts, along the outputs."""
        split = {}
        start = 0
        for place, part in enumerate(parts):
            width = part.out[1]
            if fused.per_head:
                n_heads = width // layer.attn.d_head
                cut = partial(self._turns, place=place, n_parts=len(parts), n_heads=n_heads)
            else:
                cut = partial(_rows, start=start, stop=start + width)
            split[part.slot, 0] = _map(whole, cut)
            start += width
        return split

    def _turns(self, x: Array, place: int, n_parts: int, n_heads: int) -> Array:
        """Take one part of those that take turns by head: [head * part * d_head, …]."""
        rest = x.shape[1:]
        by_head = self.xp.reshape(x, (n_heads, n_parts, -1, *rest))
        return self.xp.reshape(by_head[:, place, ...], (-1, *rest))

    def _is_fused(self, slot: str) -> bool:
        return any(slot in fused.slots for fused in self.names.fused)


def _place(key: tuple[str, int], layer: int) -> tuple[str, int, int]:
    slot, expert = key
    return slot, layer, expert


def _rows(x: Array, start: int, stop: int) -> Array:
    return x[start:stop, ...]


def _map(linear: Linear, cut: Callable[[Array], Array]) -> Linear:
    return Linear(cut(linear.weight), None if linear.bias is None else cut(linear.bias))


def _mlp(layer: Layer, linears: dict[tuple[str, int], Linear]) -> MLPParams | ExpertsParams:
    if isinstance(layer.mlp, Experts):
        experts = (
            MLPParams(
                gate=linears["expert_gate", n],
                into=linears["expert_in", n],
                out=linears["expert_out", n],
            )
            for n in range(layer.mlp.n_experts)
        )
        return ExpertsParams(router=linears["router", 0], experts=tuple(experts))
    return MLPParams(
        gate=linears.get(("mlp_gate", 0)), into=linears["mlp_in", 0], out=linears["mlp_out", 0]
    )
