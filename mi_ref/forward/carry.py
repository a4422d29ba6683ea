"""What flows from layer to layer through a pass."""

from __future__ import annotations

from dataclasses import dataclass

from mi_ref._typing import Array, Float, Residual
from mi_ref.state.state import LayerState


@dataclass(frozen=True, slots=True)
class Carry:
    """What a block takes from the one before it and gives to the next."""

    resid: Residual
    first_values: Float[Array, "batch pos head d_head"] | None
    """The values of the first layer that has any to share; RWKV-7 mixes them into later ones."""
    state: LayerState | None
    """What a recurrent block's earlier tokens left behind, and after it what these leave."""
