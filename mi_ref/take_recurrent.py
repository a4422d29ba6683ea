"""Which parameters a recurrent block has, and how they are taken from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from mi_ref.config import ChannelMix, RecurrentLayer, TimeMix6, TimeMix7
from mi_ref.params import (
    ChannelMixParams,
    LowRank,
    RecurrentLayerParams,
    TimeMix6Params,
    TimeMix7Params,
)
from mi_ref.taker import Taker
from mi_ref.weight_names import Axis, Module, Parameter

INPUTS_6 = ("w", "k", "v", "r", "g")
"""What RWKV-6 mixes with the token before: inputs of decay, key, value, receptance, gate."""
INPUTS_7 = ("r", "w", "k", "v", "a", "g")
"""The same of RWKV-7; a is the input of the in-context learning rate."""


def recurrent_modules(layer: RecurrentLayer, d_model: int) -> Iterator[Module | Parameter]:
    """Yield every module and parameter that a recurrent block's structure asks for."""
    model = ("d_model", d_model)
    attn = layer.attn
    heads = (f"n_heads {attn.n_heads} × d_head {attn.d_head}", attn.n_heads * attn.d_head)
    yield Module("ln1", model, None, True)
    for slot in ("receptance", "key", "value"):
        yield Module(slot, heads, model, False)
    if isinstance(attn, TimeMix6):
        yield from _time_mix_6(attn, model, heads)
    else:
        yield from _time_mix_7(attn, model, heads)
    yield Parameter("bonus", (("n_heads", attn.n_heads), ("d_head", attn.d_head)))
    yield Module("group_norm", heads, None, True)
    yield Module("out", model, heads, False)
    yield Module("ln2", model, None, True)
    yield from _channel_mix(layer.mlp, model)


def _time_mix_6(attn: TimeMix6, model: Axis, heads: Axis) -> Iterator[Module | Parameter]:
    yield Parameter("shift", (model,))
    for name in INPUTS_6:
        yield Parameter(f"shift_{name}", (model,))
        yield from _low_rank(f"shift_{name}", ("d_shift", attn.d_shift), model, model)
    yield Parameter("decay", (heads,))
    yield from _low_rank("decay", ("d_decay", attn.d_decay), model, heads)
    yield Module("gate", heads, model, False)


def _time_mix_7(attn: TimeMix7, model: Axis, heads: Axis) -> Iterator[Parameter]:
    for name in INPUTS_7:
        yield Parameter(f"shift_{name}", (model,))
    yield Parameter("decay", (heads,))
    yield from _low_rank("decay", ("d_decay", attn.d_decay), model, heads)
    yield Parameter("rate", (heads,))
    yield from _low_rank("rate", ("d_rate", attn.d_rate), model, heads)
    if attn.d_value is not None:
        yield Parameter("value_mix", (heads,))
        yield from _low_rank("value_mix", ("d_value", attn.d_value), model, heads)
    yield from _low_rank("gate", ("d_gate", attn.d_gate), model, heads)
    yield Parameter("removal", (heads,))
    yield Parameter("key_rate", (heads,))


def _channel_mix(mlp: ChannelMix, model: Axis) -> Iterator[Module | Parameter]:
    neurons = ("d_mlp", mlp.d_mlp)
    yield Parameter("mlp_shift", (model,))
    yield Module("mlp_in", neurons, model, False)
    yield Module("mlp_out", model, neurons, False)
    if mlp.gated:
        yield Parameter("mlp_gate_shift", (model,))
        yield Module("mlp_gate", model, model, False)


def _low_rank(slot: str, rank: Axis, into: Axis, out: Axis) -> Iterator[Parameter]:
    yield Parameter(f"{slot}_down", (rank, into))
    yield Parameter(f"{slot}_up", (out, rank))


def take_recurrent_layer(taker: Taker, layer: RecurrentLayer, number: int) -> RecurrentLayerParams:
    """Return the parameters of one block."""
    path = taker.names.path
    attn: TimeMix6Params | TimeMix7Params
    if isinstance(layer.attn, TimeMix6):
        attn = _take_time_mix_6(taker, layer, number)
    else:
        attn = _take_time_mix_7(taker, layer, layer.attn, number)
    gated = layer.mlp.gated
    return RecurrentLayerParams(
        ln1=taker.norm(path("ln1", number), layer.ln1),
        attn=attn,
        ln2=taker.norm(path("ln2", number), layer.ln2),
        mlp=ChannelMixParams(
            shift=taker.parameter("mlp_shift", number),
            into=taker.linear(path("mlp_in", number)),
            out=taker.linear(path("mlp_out", number)),
            gate_shift=taker.parameter("mlp_gate_shift", number) if gated else None,
            gate=taker.linear(path("mlp_gate", number)) if gated else None,
        ),
    )


def _take_time_mix_6(taker: Taker, layer: RecurrentLayer, number: int) -> TimeMix6Params:
    path, parameter = taker.names.path, taker.parameter
    return TimeMix6Params(
        shift=parameter("shift", number),
        shifts={name: parameter(f"shift_{name}", number) for name in INPUTS_6},
        shift_maps={name: _take_low_rank(taker, f"shift_{name}", number) for name in INPUTS_6},
        receptance=taker.linear(path("receptance", number)),
        key=taker.linear(path("key", number)),
        value=taker.linear(path("value", number)),
        gate=taker.linear(path("gate", number)),
        out=taker.linear(path("out", number)),
        decay=parameter("decay", number),
        decay_map=_take_low_rank(taker, "decay", number),
        bonus=parameter("bonus", number),
        group_norm=taker.norm(path("group_norm", number), layer.ln1),
    )


def _take_time_mix_7(
    taker: Taker, layer: RecurrentLayer, attn: TimeMix7, number: int
) -> TimeMix7Params:
    path, parameter = taker.names.path, taker.parameter
    mixed = attn.d_value is not None
    return TimeMix7Params(
        shifts={name: parameter(f"shift_{name}", number) for name in INPUTS_7},
        receptance=taker.linear(path("receptance", number)),
        key=taker.linear(path("key", number)),
        value=taker.linear(path("value", number)),
        out=taker.linear(path("out", number)),
        decay=parameter("decay", number),
        decay_map=_take_low_rank(taker, "decay", number),
        rate=parameter("rate", number),
        rate_map=_take_low_rank(taker, "rate", number),
        value_mix=parameter("value_mix", number) if mixed else None,
        value_map=_take_low_rank(taker, "value_mix", number) if mixed else None,
        gate_map=_take_low_rank(taker, "gate", number),
        removal=parameter("removal", number),
        key_rate=parameter("key_rate", number),
        bonus=parameter("bonus", number),
        group_norm=taker.norm(path("group_norm", number), layer.ln1),
    )


def _take_low_rank(taker: Taker, slot: str, number: int) -> LowRank:
    return LowRank(taker.parameter(f"{slot}_down", number), taker.parameter(f"{slot}_up", number))
