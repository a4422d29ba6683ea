"""An RNN with each input weight 1 or -1: the same function, in weights that can be compared.

A relu lets positive factors through, so a neuron's scale is arbitrary: what goes in may be divided
by it if what comes out is multiplied by it.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.algzoo.rnn import Rnn
from mi_ref.errors import WeightError


def standardise(network: Rnn) -> Rnn:
    """Return the same function with every ``|W_ih| = 1``, to rounding.

    Raises
    ------
    WeightError
        If a neuron has an input weight of 0, which no scale makes 1.
    """
    xp, weights = network.backend.xp, network.backend.to_host(network.W_ih).tolist()
    if zeros := [neuron for neuron, weight in enumerate(weights) if weight == 0]:
        raise WeightError(
            f"W_ih is 0 at neuron {', '.join(map(str, zeros))}: it hears no input, and no scale"
            " makes that 1. Read its weights as they are."
        )
    size = xp.abs(network.W_ih)
    return replace(
        network,
        W_ih=network.W_ih / size,
        W_hh=network.W_hh * size / size[:, None],
        W_oh=network.W_oh * size,
        source=None,
    )
