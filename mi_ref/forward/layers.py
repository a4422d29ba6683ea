"""The loop over layers: each layer's kind picks its block, and one carry goes through all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

from mi_ref.backend import Backend
from mi_ref.config.decoder import DecoderConfig, Layer, RecurrentLayer
from mi_ref.forward import decoder, rwkv
from mi_ref.forward.carry import Carry
from mi_ref.forward.plan import HookPlan
from mi_ref.params.params import DecoderParams, LayerParams, RecurrentLayerParams
from mi_ref.state.state import LayerState
from mi_ref.text.padding import Padding


def run_layers(
    params: DecoderParams,
    cfg: DecoderConfig,
    carry: Carry,
    states: Mapping[int, LayerState],
    padding: Padding | None,
    layers: range,
    plan: HookPlan,
    backend: Backend,
) -> tuple[Carry, dict[int, LayerState]]:
    """Send the residual stream through some successive blocks.

    Parameters
    ----------
    params, cfg
        The model.
    carry : Carry
        What enters the first of `layers`.
    states : mapping
        The state that the tokens before left in each recurrent layer of `layers`.
    padding : Padding or None
        Where each row's tokens stand, if there are pads.
    layers : range
        Which blocks.
    plan : HookPlan
        What to capture and change.
    backend : Backend
        The backend of all arrays involved.

    Returns
    -------
    tuple of Carry and dict
        What leaves the last of `layers`, and each recurrent layer's new state.
    """
    chosen = [cfg.layers[number] for number in layers]
    attending = decoder.surroundings(chosen, carry.resid, padding, backend)
    recurring = rwkv.surroundings(chosen, padding, backend)
    after: dict[int, LayerState] = {}
    for number in layers:
        w, layer, tap = params.layers[number], cfg.layers[number], plan.tap(number)
        match layer:
            case Layer():
                assert isinstance(w, LayerParams)
                carry = decoder.block(w, layer, carry, tap, attending)
            case RecurrentLayer():
                assert isinstance(w, RecurrentLayerParams)
                carry = rwkv.block(w, layer, replace(carry, state=states[number]), tap, recurring)
                assert carry.state is not None
                after[number] = carry.state
            case _:
                assert_never(layer)
    return carry, after
