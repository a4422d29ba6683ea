"""What each neuron of an RNN holds at the end, by how it correlates with functions of the input.

A neuron's role is the function with the largest Pearson correlation, of either sign; its scale and
any constant do not count. That two vary together on these inputs does not say that one is computed
as the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mi_ref._typing import Array, Bool, Float, Namespace
from mi_ref.algzoo.rnn import Rnn

CLEAR = 0.8
"""The correlation below which a role is unknown."""


@dataclass(frozen=True, slots=True)
class Role:
    """What one neuron holds after the last number."""

    neuron: int
    name: str
    """Name of a function; ``"unknown"`` if none is clear, ``"constant"`` if it never varies."""
    correlations: tuple[tuple[str, float], ...]
    """With each function, the closest first; 0 where either side does not vary."""


def probe(network: Rnn, x: Array, *, clear: float = CLEAR) -> tuple[Role, ...]:
    """Return each neuron's role on inputs ``[input, step]``.

    Parameters
    ----------
    network : Rnn
        Whose neurons.
    x : Array
        Inputs such as the network was trained on.
    clear : float
        The smallest correlation, of either sign, that makes a role.
    """
    xp, host = network.backend.xp, network.backend.to_host
    numbers = xp.asarray(x, dtype=network.dtype, device=network.backend.device)
    names, columns = zip(*references(numbers, xp=xp), strict=True)
    held = network.hidden(numbers)
    found = host(_pearson(held, xp.stack(columns, axis=1), xp)).tolist()
    still = host(_constant(held, xp)).tolist()
    roles = []
    for neuron, row in enumerate(found):
        ranked = sorted(zip(names, row, strict=True), key=lambda pair: -abs(pair[1]))
        name = ranked[0][0] if abs(ranked[0][1]) >= clear else "unknown"
        roles.append(Role(neuron, "constant" if still[neuron] else name, tuple(ranked)))
    return tuple(roles)


def references(
    x: Float[Array, "input step"], *, xp: Namespace
) -> Iterator[tuple[str, Float[Array, " input"]]]:
    """Yield functions of the input that a relu could hold, each with its name.

    ``relu`` of the maximum, minimum and last number, and of the last two negated; by how much the
    last number raised the maximum above zero, and by how much it is below it; and the difference of
    each two numbers.
    """
    n, high, last = x.shape[1], _relu(xp.max(x, axis=1), xp), x[:, -1]
    before = _relu(xp.max(x[:, :-1], axis=1), xp) if n > 1 else xp.zeros_like(last)
    low = xp.min(x, axis=1)
    yield "running max", high
    yield "running min", _relu(low, xp)
    yield "running min negated", _relu(-low, xp)
    yield "recent input", _relu(last, xp)
    yield "recent input negated", _relu(-last, xp)
    yield "max increment", high - before
    yield "leave-one-out max", high - last
    for a in range(n):
        for b in range(n):
            if a != b:
                yield f"x{a} - x{b}", _relu(x[:, a] - x[:, b], xp)


def _pearson(
    a: Float[Array, "input left"], b: Float[Array, "input right"], xp: Namespace
) -> Float[Array, "left right"]:
    (a, size_a), (b, size_b) = (_centred(side, xp) for side in (a, b))
    size = size_a[:, None] * size_b[None, :]
    return xp.where(size > 0, a.mT @ b / xp.where(size > 0, size, 1.0), 0.0)


def _centred(side: Array, xp: Namespace) -> tuple[Array, Array]:
    """Return columns less their means, and their lengths: 0 for one that never varies."""
    exact = xp.astype(side, xp.float64, copy=False)
    centred = exact - xp.mean(exact, axis=0)
    length = xp.sqrt(xp.sum(centred * centred, axis=0))
    # The mean of equal numbers is not always that number.
    return centred, xp.where(_constant(side, xp), 0.0, length)


def _constant(side: Float[Array, "input column"], xp: Namespace) -> Bool[Array, " column"]:
    return xp.max(side, axis=0) == xp.min(side, axis=0)


def _relu(x: Array, xp: Namespace) -> Array:
    return xp.where(x > 0, x, xp.zeros_like(x))
