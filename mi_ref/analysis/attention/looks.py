"""Where one position looks: the row of an attention pattern in numbers and as a table.

Source: Vig and Belinkov, arXiv:1906.04284 (entropy and distance); Xiao et al., arXiv:2309.17453
(sinks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mi_ref.output.tables import Styled, Table, chance


@dataclass(frozen=True, slots=True)
class Key:
    """A token that a position looks at."""

    position: int
    token: str
    weight: float


@dataclass(frozen=True, slots=True)
class Look:
    """Where one position looks in one head, or in the mean over heads."""

    layer: int
    head: int | None
    """None for the mean over the heads that were looked at."""
    position: int
    sink: float
    """Weight on the first token."""
    entropy: float
    """In nats: 0 if it looks at one token, ``log(n)`` if equally at n."""
    distance: float
    """How many tokens back it looks in the mean: 0 for itself."""
    top: tuple[Key, ...]
    """The keys with most weight, most first."""


def look_of(
    row: Sequence[float],
    str_tokens: Sequence[str],
    *,
    layer: int,
    head: int | None,
    position: int,
    top: int,
) -> Look:
    """Return what a row of a pattern comes to: the weights that a position gives to each key."""
    most = sorted(range(len(row)), key=lambda key: (-row[key], key))[:top]
    return Look(
        layer=layer,
        head=head,
        position=position,
        sink=row[0],
        entropy=0.0 - sum(weight * math.log(weight) for weight in row if weight > 0),
        distance=sum(weight * (position - key) for key, weight in enumerate(row)),
        top=tuple(Key(key, str_tokens[key], row[key]) for key in most if row[key] > 0),
    )


def look_table(what: str, rows: Sequence[tuple[str, Look]], title: str) -> Table:
    """Return a row per layer or head, as `what` says."""
    table = Table(
        [f">{what}", "looks at", ">", "then at", ">sink", ">entropy", ">distance"],
        title,
        flexible=["then at"],
    )
    for name, look in rows:
        first, *others = look.top
        table.add(
            name,
            Styled((f"{first.position} {first.token!r}", "bold")),
            Styled((chance(first.weight), "bold")),
            Styled(*((f"{k.position} {k.token!r} {chance(k.weight)}", "dim") for k in others)),
            chance(look.sink),
            f"{look.entropy:.2f}",
            f"{look.distance:.1f}",
        )
    return table


def listed(numbers: Sequence[int], what: str = "") -> str:
    """Return whole numbers as text, runs of them by their ends, `what` they are before it."""
    listed = f"{numbers[0]} to {numbers[-1]}"
    if list(numbers) != list(range(numbers[0], numbers[-1] + 1)) or len(numbers) < 3:
        listed = ", ".join(map(str, numbers))
    return f"{what} {listed}".strip()
