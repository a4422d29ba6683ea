"""Reading a decoder's parameters from a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from mi_ref._typing import Namespace
from mi_ref.checkpoints.read_recurrent import read_recurrent_layer
from mi_ref.checkpoints.tensor_reader import Load, TensorReader
from mi_ref.config.decoder import DecoderConfig, Experts, Layer, NormKind, RecurrentLayer
from mi_ref.families.reading.weight_names import WeightNames, modules_of
from mi_ref.params.params import (
    DecoderParams,
    ExpertsParams,
    LayerParams,
    Linear,
    MLPParams,
    Norm,
    RecurrentLayerParams,
)


def read_params(
    cfg: DecoderConfig, names: WeightNames, load: Load, available: Collection[str], xp: Namespace
) -> DecoderParams:
    """Return every parameter; call `mi_ref.checkpoints.check.check_tensors` first.

    Parameters
    ----------
    cfg : DecoderConfig
        The structure.
    names : WeightNames
        The family's names.
    load : callable
        Returns the backend's array for a tensor name.
    available : collection of str
        The names of the checkpoint's tensors.
    xp
        The backend's namespace.
    """
    names = names.found_in(available)
    tensors = TensorReader(names, load, available, xp)
    embed = load(f"{names.prefix}{names.embed}.weight")
    own = f"{names.unembed}.weight" in available
    return DecoderParams(
        embed=embed,
        pos_embed=(
            load(f"{names.prefix}{names.pos_embed}.weight") if cfg.learned_positions else None
        ),
        ln_embed=(
            None
            if cfg.ln_embed is None
            else tensors.norm(f"{names.prefix}{names.ln_embed}", cfg.ln_embed)
        ),
        layers=tuple(_read_layers(tensors, cfg)),
        ln_final=tensors.norm(names.prefix + names.ln_final, cfg.ln_final),
        unembed=Linear(
            load(f"{names.unembed}.weight") if own else embed, tensors.bias(names.unembed)
        ),
    )


def _read_layers(
    tensors: TensorReader, cfg: DecoderConfig
) -> Iterator[LayerParams | RecurrentLayerParams]:
    for number, layer in enumerate(cfg.layers):
        if isinstance(layer, RecurrentLayer):
            yield read_recurrent_layer(tensors, layer, number)
        else:
            yield _read_layer(tensors, layer, cfg.d_model, number)


def _read_layer(tensors: TensorReader, layer: Layer, d_model: int, number: int) -> LayerParams:
    names = tensors.names
    modules = {(m.slot, m.expert): m for m in modules_of(layer, d_model)}
    linears = {
        (slot, expert): tensors.linear(names.path(slot, number, expert))
        for (slot, expert), module in modules.items()
        if module.into is not None and not tensors.is_fused(slot)
    }
    for fused in names.fused:
        parts = [modules[slot, 0] for slot in fused.slots if (slot, 0) in modules]
        if parts:
            whole = tensors.linear(names.path(fused.slots[0], number))
            linears |= tensors.split(whole, fused, parts, layer.attn.d_head)
    qk_norm = layer.attn.qk_norm

    def norm(slot: str, kind: NormKind | None) -> Norm | None:
        return None if kind is None else tensors.norm(names.path(slot, number), kind)

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
