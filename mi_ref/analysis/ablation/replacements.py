"""What ablations over many prompts put in a part's place: always something of other prompts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from mi_ref._typing import Array
from mi_ref.analysis.ablation.parts import (
    Method,
    Replacement,
    activations,
    check_draws,
    check_method,
)
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.errors import ShapeError
from mi_ref.hooks.sites import Point
from mi_ref.model import Model


@dataclass(frozen=True, slots=True, eq=False)
class Replacements:
    """What to put in, for each prompt once or, when resampling, for each draw."""

    values: tuple[tuple[Replacement, ...], ...]
    """By prompt, then draw."""
    partners: tuple[tuple[int, ...], ...]
    """Which prompts were drawn for each one; empty but for resampling."""


def from_others(
    model: Model,
    prompts: Sequence[tuple[int, ...]],
    points: Sequence[Point],
    method: Method,
    *,
    draws: int,
    seed: int,
) -> Replacements:
    """Return what each prompt's parts are replaced by.

    Parameters
    ----------
    model : Model
        What runs.
    prompts : sequence of tuple of int
        Token ids, all different.
    points : sequence of Point
        Where the parts' outputs pass.
    method : {"zero", "mean", "resample"}
        Mean: over all tokens of all *other* prompts, so that a prompt never takes part in what it
        is compared with. Resample: position by position what a part is on another prompt of as
        many tokens, drawn with replacement.
    draws, seed : int
        For resampling: how many to draw, and the seed.

    Raises
    ------
    ShapeError
        If a resampled prompt has no other of its length, with all such prompts.
    """
    check_method(method)
    if method == "zero":
        return Replacements(((None,),) * len(prompts), ())
    if method == "mean":
        return Replacements(tuple((each,) for each in _means(model, prompts, points)), ())
    check_draws(draws)
    partners = _drawn(model, prompts, draws, seed)
    needed = sorted({n for row in partners for n in row})
    kept = {n: activations(model, prompts[n], points) for n in needed}
    return Replacements(tuple(tuple(kept[n] for n in row) for row in partners), partners)


def _drawn(
    model: Model, prompts: Sequence[tuple[int, ...]], draws: int, seed: int
) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the prompts that stand in for each one."""
    same = [
        [n for n, other in enumerate(prompts) if n != own and len(other) == len(ids)]
        for own, ids in enumerate(prompts)
    ]
    if alone := [n for n, others in enumerate(same) if not others]:
        listed = "; ".join(
            f"{n} ({len(prompts[n])} tokens, {list(map(model.token_string, prompts[n]))})"
            for n in alone
        )
        raise ShapeError(
            "resampling puts in what another prompt of as many tokens has, and these have no"
            f" other: {listed}. Leave them out, add prompts of their lengths, or use the mean."
        )
    generator, k = random.Random(whole(seed, "seed")), whole(draws, "draws")
    return tuple(tuple(generator.choices(others, k=k)) for others in same)


def _means(
    model: Model, prompts: Sequence[tuple[int, ...]], points: Sequence[Point]
) -> list[dict[Point, Array]]:
    """Return for each prompt the mean over the tokens of all others, ``[1, 1, …]`` in float64."""
    xp = model.backend.xp
    sums = []
    for ids in prompts:
        found = activations(model, ids, points)
        sums.append({
            point: xp.sum(xp.astype(x, xp.float64), axis=1, keepdims=True)
            for point, x in found.items()
        })  # fmt: skip
    n_tokens = sum(map(len, prompts))
    total = {point: sum((each[point] for each in sums[1:]), sums[0][point]) for point in points}
    return [
        {point: (total[point] - own[point]) / (n_tokens - len(ids)) for point in points}
        for ids, own in zip(prompts, sums, strict=True)
    ]
