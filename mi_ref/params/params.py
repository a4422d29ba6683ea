"""A decoder's parameters as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mi_ref._typing import Array, Float


@dataclass(frozen=True, slots=True)
class Linear:
    """An affine map, ``x @ weight.T + bias``."""

    weight: Float[Array, "d_out d_in"]
    bias: Float[Array, " d_out"] | None


@dataclass(frozen=True, slots=True)
class Norm:
    """Gain and bias of a norm."""

    weight: Float[Array, " width"]
    bias: Float[Array, " width"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MLPParams:
    """Parameters of one MLP."""

    gate: Linear | None
    """None in a plain MLP."""
    into: Linear
    out: Linear


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsParams:
    """Parameters of a mixture of experts."""

    router: Linear
    experts: tuple[MLPParams, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerParams:
    """Parameters of one block; None for what it does not have."""

    ln1: Norm | None
    query: Linear
    key: Linear
    value: Linear
    q_norm: Norm | None
    k_norm: Norm | None
    out: Linear
    ln1_post: Norm | None
    ln2: Norm | None
    mlp: MLPParams | ExpertsParams
    ln2_post: Norm | None


@dataclass(frozen=True, slots=True)
class LowRank:
    """A linear map through few dimensions, with something between its two halves."""

    down: Float[Array, "rank d_in"]
    up: Float[Array, "d_out rank"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMix6Params:
    """Parameters of RWKV-6's time mixing. Inputs are called w (decay), k, v, r and g (gate)."""

    shift: Float[Array, " d_model"]
    """How much of the token before enters what the maps of `shift_maps` read."""
    shifts: Mapping[str, Float[Array, " d_model"]]
    """How much of it enters each input, before what the map of that input adds."""
    shift_maps: Mapping[str, LowRank]
    receptance: Linear
    key: Linear
    value: Linear
    gate: Linear
    out: Linear
    decay: Float[Array, " d_model"]
    decay_map: LowRank
    bonus: Float[Array, "head d_head"]
    group_norm: Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMix7Params:
    """Parameters of RWKV-7's time mixing. Inputs are called r, w (decay), k, v, a, g (gate)."""

    shifts: Mapping[str, Float[Array, " d_model"]]
    """How much of the token before enters each input."""
    receptance: Linear
    key: Linear
    value: Linear
    out: Linear
    decay: Float[Array, " d_model"]
    decay_map: LowRank
    rate: Float[Array, " d_model"]
    rate_map: LowRank
    value_mix: Float[Array, " d_model"] | None
    """None, as `value_map`, where no values of layer 0 enter."""
    value_map: LowRank | None
    gate_map: LowRank
    removal: Float[Array, " d_model"]
    """Turns keys into removal keys."""
    key_rate: Float[Array, " d_model"]
    """How much the in-context learning rate scales the key."""
    bonus: Float[Array, "head d_head"]
    group_norm: Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMixParams:
    """Parameters of channel mixing; the last two are None without a gate."""

    shift: Float[Array, " d_model"]
    into: Linear
    out: Linear
    gate_shift: Float[Array, " d_model"] | None
    gate: Linear | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentLayerParams:
    """Parameters of one recurrent block."""

    ln1: Norm
    attn: TimeMix6Params | TimeMix7Params
    ln2: Norm
    mlp: ChannelMixParams


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderParams:
    """Parameters of a whole decoder. `unembed` has `embed` itself if the two are tied."""

    embed: Float[Array, "d_vocab d_model"]
    pos_embed: Float[Array, "n_ctx d_model"] | None
    ln_embed: Norm | None
    layers: tuple[LayerParams | RecurrentLayerParams, ...]
    ln_final: Norm
    unembed: Linear

    @property
    def blocks(self) -> tuple[LayerParams, ...]:
        """Those of a transformer's layers; empty in a recurrent model."""
        return tuple(layer for layer in self.layers if isinstance(layer, LayerParams))
