"""Which relus of an RNN are open, and the linear map that it is while they are.

Inputs with one pattern form a cone on which the network is a matrix. How many patterns there are is
not known from samples: those that were met are a lower bound.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TypeAlias

from mi_ref._typing import Array, Bool, Float
from mi_ref.algzoo.rnn import Rnn
from mi_ref.errors import ShapeError

Pattern: TypeAlias = tuple[tuple[bool, ...], ...]
"""By step, then neuron: whether what goes into its relu is above zero."""


@dataclass(frozen=True, slots=True)
class PatternCounts:
    """The activation patterns that sample inputs meet."""

    counts: tuple[tuple[Pattern, int], ...]
    """Each with how many inputs meet it, most met first."""
    possible: int
    """On and off of every relu at every step: most of them no input meets."""
    gap: float
    """Between ``linear_map(pattern) @ x`` and the logits of x: the largest over all inputs, over
    the largest logit. Rounding, or the maps are wrong."""


def patterns(network: Rnn, x: Array) -> Bool[Array, "input step neuron"]:
    """Return which relus are open for each input."""
    return network.trace(x) > 0


def linear_map(network: Rnn, pattern: Array) -> Float[Array, "*input answer step"]:
    """Return A with ``logits = A @ x`` for every x of a pattern, or one for each of a batch.

    Parameters
    ----------
    network : Rnn
        Without biases, so that no constant is left over.
    pattern : Array or sequence
        ``[step, neuron]`` or ``[input, step, neuron]``, true where the relu is open. No input need
        meet it.

    Raises
    ------
    ShapeError
        If it is not of this network's neurons.
    """
    xp, device = network.backend.xp, network.backend.device
    on = xp.astype(xp.asarray(pattern, device=device), network.dtype)
    if on.ndim not in (2, 3) or on.shape[-1] != len(network.parts):
        raise ShapeError(
            f"a pattern is [step, {len(network.parts)} neurons], or a batch of such, not"
            f" {tuple(on.shape)}."
        )
    n_steps = on.shape[-2]
    reads = xp.eye(n_steps, dtype=network.dtype, device=device)
    # What each neuron holds of each input number.
    h = xp.zeros((*on.shape[:-2], len(network.parts), n_steps), dtype=network.dtype, device=device)
    for step in range(n_steps):
        into = network.W_ih[:, None] * reads[step, :][None, :] + network.W_hh @ h
        h = on[..., step, :][..., None] * into
    return network.W_oh @ h


def count_patterns(network: Rnn, x: Array) -> PatternCounts:
    """Return the patterns that inputs meet, each one's map checked on its inputs."""
    xp, host = network.backend.xp, network.backend.to_host
    numbers = xp.asarray(x, dtype=network.dtype, device=network.backend.device)
    met = patterns(network, numbers)
    counts = Counter(tuple(map(tuple, rows)) for rows in host(met).tolist())
    out, largest = network.logits(numbers), 0.0
    for start in range(0, numbers.shape[0], 1000):  # bounds memory: a matrix per input
        rows = slice(start, start + 1000)
        mapped = linear_map(network, met[rows, :, :]) @ numbers[rows, :, None]
        largest = max(largest, float(xp.max(xp.abs(mapped[..., 0] - out[rows, :]))))
    scale = float(xp.max(xp.abs(out))) or 1.0
    possible = 2 ** (met.shape[1] * met.shape[2])
    return PatternCounts(tuple(counts.most_common()), possible, largest / scale)
