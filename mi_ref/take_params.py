"""How a decoder's parameters are taken from a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mi_ref._typing import Namespace
from mi_ref.config import DecoderConfig, Experts, Layer, NormKind, RecurrentLayer
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
from mi_ref.taker import Take, Taker
from mi_ref.weight_names import WeightNames, modules_of


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
        layers=tuple(_layers(taker, cfg)),
        ln_final=taker.norm(names.prefix + names.ln_final, cfg.ln_final),
        unembed=Linear(
            take(f"{names.unembed}.weight") if own else embed, taker.bias(names.unembed)
        ),
    )


def _layers(taker: Taker, cfg: DecoderConfig) -> Iterator[LayerParams | RecurrentLayerParams]:
    """Yield the parameters of every block."""
    for number, layer in enumerate(cfg.layers):
        if isinstance(layer, RecurrentLayer):
            yield take_recurrent_layer(taker, layer, number)
        else:
            yield _layer(taker, layer, cfg.d_model, number)


def _layer(taker: Taker, layer: Layer, d_model: int, number: int) -> LayerParams:
    """Return the parameters of one block."""
    modules = {(m.slot, m.expert): m for m in modules_of(layer, d_model)}
    linears = {
        key: taker.linear(taker.names.path(*_place(key, number)))
        for key, module in modules.items()
        if module.into is not None and not taker.is_fused(module.slot)
    }
    for fused in taker.names.fused:
        parts = [modules[slot, 0] for slot in fused.slots if (slot, 0) in modules]
        if parts:
            whole = taker.linear(taker.names.path(fused.slots[0], number))
            linears |= taker.split(whole, fused, parts, layer)
    qk_norm = layer.attn.qk_norm

    def norm(slot: str, kind: NormKind | None) -> Norm | None:
        return None if kind is None else taker.norm(taker.names.path(slot, number), kind)

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


def _place(key: tuple[str, int], layer: int) -> tuple[str, int, int]:
    slot, expert = key
    return slot, layer, expert


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
