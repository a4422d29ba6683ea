"""The parameters of a recurrent block, and reading them from a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_never

from mi_ref.checkpoints.tensor_reader import TensorReader
from mi_ref.config.decoder import ChannelMix, RecurrentLayer, TimeMix6, TimeMix7
from mi_ref.families.reading.weight_names import Axis, Module, Parameter
from mi_ref.params.params import (
    ChannelMixParams,
    LowRank,
    RecurrentLayerParams,
    TimeMix6Params,
    TimeMix7Params,
)

INPUTS_6 = ("w", "k", "v", "r", "g")
"""What RWKV-6 mixes with the previous token: inputs of decay, key, value, receptance, gate."""
INPUTS_7 = ("r", "w", "k", "v", "a", "g")
"""The same for RWKV-7; a is the input of the in-context learning rate."""


def recurrent_modules(layer: RecurrentLayer, d_model: int) -> Iterator[Module | Parameter]:
    """Yield every module and parameter that a recurrent block's structure requires."""
    model = ("d_model", d_model)
    mixer = layer.mixer
    heads = (f"n_heads {mixer.n_heads} × d_head {mixer.d_head}", mixer.n_heads * mixer.d_head)
    yield Module("ln1", model, None, True)
    for slot in ("receptance", "key", "value"):
        yield Module(slot, heads, model, False)
    match mixer:
        case TimeMix6():
            yield from _time_mix_6(mixer, model, heads)
        case TimeMix7():
            yield from _time_mix_7(mixer, model, heads)
        case _:
            assert_never(mixer)
    yield Parameter("bonus", (("n_heads", mixer.n_heads), ("d_head", mixer.d_head)))
    yield Module("group_norm", heads, None, True)
    yield Module("out", model, heads, False)
    yield Module("ln2", model, None, True)
    yield from _channel_mix(layer.mlp, model)


def _time_mix_6(mixer: TimeMix6, model: Axis, heads: Axis) -> Iterator[Module | Parameter]:
    yield Parameter("shift", (model,))
    for name in INPUTS_6:
        yield Parameter(f"shift_{name}", (model,))
        yield from _low_rank(f"shift_{name}", ("d_shift", mixer.d_shift), model, model)
    yield Parameter("decay", (heads,))
    yield from _low_rank("decay", ("d_decay", mixer.d_decay), model, heads)
    yield Module("gate", heads, model, False)


def _time_mix_7(mixer: TimeMix7, model: Axis, heads: Axis) -> Iterator[Parameter]:
    for name in INPUTS_7:
        yield Parameter(f"shift_{name}", (model,))
    yield Parameter("decay", (heads,))
    yield from _low_rank("decay", ("d_decay", mixer.d_decay), model, heads)
    yield Parameter("rate", (heads,))
    yield from _low_rank("rate", ("d_rate", mixer.d_rate), model, heads)
    if mixer.d_value is not None:
        yield Parameter("value_mix", (heads,))
        yield from _low_rank("value_mix", ("d_value", mixer.d_value), model, heads)
    yield from _low_rank("gate", ("d_gate", mixer.d_gate), model, heads)
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


def read_recurrent_layer(
    tensors: TensorReader, layer: RecurrentLayer, number: int
) -> RecurrentLayerParams:
    """Return the parameters of one block."""
    path = tensors.names.path
    attn: TimeMix6Params | TimeMix7Params
    match layer.mixer:
        case TimeMix6():
            attn = _read_time_mix_6(tensors, layer, number)
        case TimeMix7():
            attn = _read_time_mix_7(tensors, layer, layer.mixer, number)
        case _:
            assert_never(layer.mixer)
    gated = layer.mlp.gated
    return RecurrentLayerParams(
        ln1=tensors.norm(path("ln1", number), layer.ln1),
        attn=attn,
        ln2=tensors.norm(path("ln2", number), layer.ln2),
        mlp=ChannelMixParams(
            shift=tensors.parameter("mlp_shift", number),
            into=tensors.linear(path("mlp_in", number)),
            out=tensors.linear(path("mlp_out", number)),
            gate_shift=tensors.parameter("mlp_gate_shift", number) if gated else None,
            gate=tensors.linear(path("mlp_gate", number)) if gated else None,
        ),
    )


def _read_time_mix_6(tensors: TensorReader, layer: RecurrentLayer, number: int) -> TimeMix6Params:
    path, parameter = tensors.names.path, tensors.parameter
    return TimeMix6Params(
        shift=parameter("shift", number),
        shifts={name: parameter(f"shift_{name}", number) for name in INPUTS_6},
        shift_maps={name: _read_low_rank(tensors, f"shift_{name}", number) for name in INPUTS_6},
        receptance=tensors.linear(path("receptance", number)),
        key=tensors.linear(path("key", number)),
        value=tensors.linear(path("value", number)),
        gate=tensors.linear(path("gate", number)),
        out=tensors.linear(path("out", number)),
        decay=parameter("decay", number),
        decay_map=_read_low_rank(tensors, "decay", number),
        bonus=parameter("bonus", number),
        group_norm=tensors.norm(path("group_norm", number), layer.ln1),
    )


def _read_time_mix_7(
    tensors: TensorReader, layer: RecurrentLayer, mixer: TimeMix7, number: int
) -> TimeMix7Params:
    path, parameter = tensors.names.path, tensors.parameter
    mixed = mixer.d_value is not None
    return TimeMix7Params(
        shifts={name: parameter(f"shift_{name}", number) for name in INPUTS_7},
        receptance=tensors.linear(path("receptance", number)),
        key=tensors.linear(path("key", number)),
        value=tensors.linear(path("value", number)),
        out=tensors.linear(path("out", number)),
        decay=parameter("decay", number),
        decay_map=_read_low_rank(tensors, "decay", number),
        rate=parameter("rate", number),
        rate_map=_read_low_rank(tensors, "rate", number),
        value_mix=parameter("value_mix", number) if mixed else None,
        value_map=_read_low_rank(tensors, "value_mix", number) if mixed else None,
        gate_map=_read_low_rank(tensors, "gate", number),
        removal=parameter("removal", number),
        key_rate=parameter("key_rate", number),
        bonus=parameter("bonus", number),
        group_norm=tensors.norm(path("group_norm", number), layer.ln1),
    )


def _read_low_rank(tensors: TensorReader, slot: str, number: int) -> LowRank:
    down, up = (tensors.parameter(f"{slot}_{end}", number) for end in ("down", "up"))
    return LowRank(down, up)
