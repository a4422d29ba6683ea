"""A decoder's parameters, and how they are taken from a checkpoint: each tensor used or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from mi_ref._typing import Array, Float
from mi_ref.config import DecoderConfig, Layer
from mi_ref.errors import WeightError
from mi_ref.weights import TensorInfo


@dataclass(frozen=True, slots=True)
class Linear:
    """An affine map, ``x @ weight.T + bias``: the weight as checkpoints store it."""

    weight: Float[Array, "d_out d_in"]
    bias: Float[Array, " d_out"] | None


@dataclass(frozen=True, slots=True)
class Norm:
    """Gain of a norm."""

    weight: Float[Array, " d_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParams:
    """Parameters of one block."""

    ln1: Norm
    query: Linear
    key: Linear
    value: Linear
    out: Linear
    ln2: Norm
    mlp_gate: Linear
    mlp_in: Linear
    mlp_out: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderParams:
    """Parameters of a whole decoder. `unembed` is `embed` itself if the two are tied."""

    embed: Float[Array, "d_vocab d_model"]
    layers: tuple[LayerParams, ...]
    ln_final: Norm
    unembed: Float[Array, "d_vocab d_model"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNames:
    """Where a family's checkpoints keep each module: its path without ``.weight`` or ``.bias``.

    ``{layer}`` stands for the number of the block.
    """

    embed: str
    ln_final: str
    unembed: str
    ln1: str
    query: str
    key: str
    value: str
    out: str
    ln2: str
    mlp_gate: str
    mlp_in: str
    mlp_out: str
    ignored: tuple[str, ...]
    """Tensors that may be present and carry nothing, by full name."""


Take = Callable[[str], Array]


@dataclass(frozen=True, slots=True)
class TensorFault:
    """One tensor that does not fit; ``str`` gives the sentence."""

    kind: Literal["missing", "misshapen", "unused"]
    name: str
    detail: str

    def __str__(self) -> str:
        return f"{self.name} {self.detail}"


def check_tensors(
    cfg: DecoderConfig, names: WeightNames, info: Mapping[str, TensorInfo], *, source: str
) -> None:
    """Refuse a checkpoint with a tensor missing, misshapen or unused.

    Raises
    ------
    WeightError
        Listing all of them, with the sizes in the config that each shape comes from.
    """
    if faults := tensor_faults(cfg, names, info):
        shown = "\n  ".join(map(str, faults[:12]))
        more = f"\n  and {len(faults) - 12} more" if len(faults) > 12 else ""
        raise WeightError(
            f"the weights of {source} do not fit its config.json:\n  {shown}{more}\n"
            "Are config and weights from the same checkpoint, and is it whole?"
        )


def tensor_faults(
    cfg: DecoderConfig, names: WeightNames, info: Mapping[str, TensorInfo]
) -> list[TensorFault]:
    """Return what is wrong with a checkpoint's tensors; empty if they fit."""
    faults = []
    expected = {name: (shape, why) for name, shape, why in _expected(cfg, names)}
    spared = {pattern.format(layer=i) for pattern in names.ignored for i in range(cfg.n_layers)}
    if cfg.tied:
        # HuggingFace ties only if the file lacks one of the two, or holds them equal.
        spared.add(f"{names.unembed}.weight")
    for name, (shape, why) in expected.items():
        if name not in info:
            faults.append(TensorFault("missing", name, f"is missing: {shape} = ({why}) was needed"))
        elif info[name].shape != shape:
            detail = f"is {info[name].shape}; config.json asks for {shape} = ({why})"
            faults.append(TensorFault("misshapen", name, detail))
    faults += [
        TensorFault("unused", name, f"{tensor.shape} is not used by this architecture")
        for name, tensor in info.items()
        if name not in expected and name not in spared
    ]
    return faults


def load_params(
    cfg: DecoderConfig, names: WeightNames, take: Take, available: Mapping[str, TensorInfo]
) -> DecoderParams:
    """Take every parameter; call `check_tensors` first.

    Parameters
    ----------
    cfg : DecoderConfig
        The architecture.
    names : WeightNames
        The family's names.
    take : callable
        Returns the backend's array for a tensor name.
    available : mapping
        The checkpoint's tensors.
    """
    embed = take(f"{names.embed}.weight")
    own_unembed = f"{names.unembed}.weight" in available
    return DecoderParams(
        embed=embed,
        layers=tuple(_load_layer(names, i, take, available) for i in range(cfg.n_layers)),
        ln_final=Norm(take(f"{names.ln_final}.weight")),
        unembed=take(f"{names.unembed}.weight") if own_unembed else embed,
    )


def _load_layer(
    names: WeightNames, number: int, take: Take, available: Mapping[str, TensorInfo]
) -> LayerParams:
    def module(slot: str) -> Any:
        path = getattr(names, slot).format(layer=number)
        if slot in ("ln1", "ln2"):
            return Norm(take(f"{path}.weight"))
        bias = take(f"{path}.bias") if f"{path}.bias" in available else None
        return Linear(take(f"{path}.weight"), bias)

    return LayerParams(**{field.name: module(field.name) for field in fields(LayerParams)})


def _expected(cfg: DecoderConfig, names: WeightNames) -> Iterator[tuple[str, tuple[int, ...], str]]:
    """Yield name, shape and the meaning of that shape for every tensor the config asks for."""
    vocab = ("d_vocab", cfg.d_vocab)
    model = ("d_model", cfg.d_model)
    yield _tensor(f"{names.embed}.weight", vocab, model)
    for number, layer in enumerate(cfg.layers):
        for slot, out, into, bias in _modules(layer, model):
            path = getattr(names, slot).format(layer=number)
            yield _tensor(f"{path}.weight", *(axis for axis in (out, into) if axis))
            if bias:
                yield _tensor(f"{path}.bias", out)
    yield _tensor(f"{names.ln_final}.weight", model)
    if not cfg.tied:
        yield _tensor(f"{names.unembed}.weight", vocab, model)


_Axis = tuple[str, int]


def _modules(layer: Layer, model: _Axis) -> Iterator[tuple[str, _Axis, _Axis | None, bool]]:
    """Yield slot, output axis, input axis and whether there is a bias, of one block's modules."""
    attn, mlp = layer.attn, layer.mlp
    query = (f"n_heads {attn.n_heads} × d_head {attn.d_head}", attn.n_heads * attn.d_head)
    key = (
        f"n_key_value_heads {attn.n_key_value_heads} × d_head {attn.d_head}",
        attn.n_key_value_heads * attn.d_head,
    )
    neurons = ("d_mlp", mlp.d_mlp)
    yield "ln1", model, None, False
    yield "query", query, model, attn.bias_qkv
    yield "key", key, model, attn.bias_qkv
    yield "value", key, model, attn.bias_qkv
    yield "out", model, query, attn.bias_out
    yield "ln2", model, None, False
    yield "mlp_gate", neurons, model, mlp.bias
    yield "mlp_in", neurons, model, mlp.bias
    yield "mlp_out", model, neurons, mlp.bias


def _tensor(name: str, *axes: _Axis) -> tuple[str, tuple[int, ...], str]:
    meaning = ", ".join(label if "×" in label else f"{label} {size}" for label, size in axes)
    return name, tuple(size for _, size in axes), meaning
