"""The parts that an ablation takes away, one at a time, and what it puts in their place."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mi_ref import do
from mi_ref._typing import Array
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt, places
from mi_ref.edits.intervention import Places
from mi_ref.errors import ArgumentError, ShapeError
from mi_ref.hooks.capture import Edit
from mi_ref.hooks.selectors import Selector
from mi_ref.hooks.sites import LayerSite, Point, at
from mi_ref.model import Model

What: TypeAlias = Literal["head", "attn", "mlp", "layer", "neuron"]
Method: TypeAlias = Literal["zero", "mean", "resample"]
Replacement: TypeAlias = dict[Point, Array] | None
"""What to put at each point, broadcasting to ``[1, pos, …]``; None for zeros."""

SITES: dict[What, tuple[LayerSite, ...]] = {
    "head": (at.z,),
    "attn": (at.attn_out,),
    "mlp": (at.mlp_out,),
    "layer": (at.attn_out, at.mlp_out),
    "neuron": (at.post,),
}


@dataclass(frozen=True, slots=True)
class Part:
    """One head, neuron or whole output of a layer."""

    what: What
    layer: int
    index: int | None
    points: tuple[Point, ...]
    """Where its output passes."""


def every_part(model: Model, what: What, layers: Places, indices: Places) -> list[Part]:
    """Return the parts to ablate, by layer.

    Raises
    ------
    ShapeError
        If a layer, a head or a neuron lies outside, or `indices` are given of whole parts.
    """
    if what not in SITES:
        raise ArgumentError(f"what={what!r}: expected {', '.join(map(repr, SITES))}.")
    # What heads of a recurrent model read of their state is their output.
    sites = (at.rwkv_wkv,) if what == "head" and model.cfg.recurrent else SITES[what]
    chosen = places(layers, model.cfg.n_layers, "layers")
    sizes = {"head": model.cfg.n_heads, "neuron": model.cfg.d_mlp}
    if what not in sizes:
        if indices is not None:
            raise ShapeError(f"indices={indices!r}: a layer has one {what} only.")
        return [Part(what, n, None, _points(sites, n)) for n in chosen]
    each = places(indices, sizes[what], "indices")
    return [Part(what, n, index, _points(sites, n)) for n in chosen for index in each]


def _points(sites: Sequence[LayerSite], layer: int) -> tuple[Point, ...]:
    return tuple(site[layer] for site in sites)


def edits_of(
    part: Part, value: Replacement, positions: Sequence[int]
) -> list[tuple[Selector, Edit]]:
    """Return the edits that put `value` in the place of a part at some positions."""
    where = do.Where(positions=tuple(positions))
    if part.what == "head":
        where["heads"] = part.index
    elif part.what == "neuron":
        where["neurons"] = part.index
    if value is None:
        return [(point, do.zero(**where)) for point in part.points]
    # Only what is put in: the rest would go to every worker and into every file's hash.
    own = slice(None) if part.index is None else slice(part.index, part.index + 1)
    return [(point, do.replace(value[point][:, :, own, ...], **where)) for point in part.points]


def replacements(
    model: Model,
    ids: Sequence[int],
    parts: Sequence[Part],
    method: Method,
    reference: Sequence[str] | Sequence[Sequence[int]],
    *,
    draws: int,
    seed: int,
    prepend_bos: bool | None,
) -> tuple[tuple[tuple[int, ...], ...], list[Replacement], tuple[int, ...]]:
    """Return the reference prompts' ids, what to put in the parts' place, and what was drawn.

    Raises
    ------
    ShapeError
        If there are no reference prompts, or too many for the method, or of other lengths.
    """
    check_method(method)
    if method == "zero":
        if len(reference):
            raise ShapeError("zero ablation needs no reference prompts: choose another method.")
        return (), [None], ()
    if isinstance(reference, str) or not len(reference):
        raise ShapeError(f"{method} ablation needs reference=: a sequence of prompts.")
    refs = tuple(one_prompt(model, prompt, prepend_bos) for prompt in reference)
    points = points_of(parts)
    if method == "mean":
        return refs, [_means(model, refs, points)], ()
    _same_length(model, ids, refs)
    check_draws(draws)
    chosen = random.Random(whole(seed, "seed")).choices(range(len(refs)), k=whole(draws, "draws"))
    drawn = tuple(chosen)
    kept = {n: activations(model, refs[n], points) for n in sorted(set(drawn))}
    return refs, [kept[n] for n in drawn], drawn


def check_method(method: str) -> None:
    """Refuse a method that there is not.

    Raises
    ------
    ValueError
        With those that there are.
    """
    if method not in ("zero", "mean", "resample"):
        raise ArgumentError(f"method={method!r}: expected 'zero', 'mean' or 'resample'.")


def check_draws(draws: int) -> None:
    """Refuse to draw no prompt at all.

    Raises
    ------
    ShapeError
        With the number.
    """
    if whole(draws, "draws") < 1:
        raise ShapeError(f"draws={draws}: at least one reference prompt has to be drawn.")


def points_of(parts: Sequence[Part]) -> list[Point]:
    """Return every point that the parts' outputs pass, once."""
    return list(dict.fromkeys(point for part in parts for point in part.points))


def activations(model: Model, ids: Sequence[int], points: Sequence[Point]) -> dict[Point, Array]:
    """Return what a prompt has at some points, ``[1, pos, …]``."""
    run = model.run(list(ids), capture=points, logits="none")
    return {point: run[point] for point in points}


def _means(
    model: Model, refs: Sequence[Sequence[int]], points: Sequence[Point]
) -> dict[Point, Array]:
    """Return the mean over all tokens of all prompts, ``[1, 1, …]`` at each point."""
    xp = model.backend.xp
    sums: dict[Point, Array] = {}
    for ids in refs:
        for point, x in activations(model, ids, points).items():
            total = xp.sum(x, axis=1, keepdims=True)
            sums[point] = sums[point] + total if point in sums else total
    n_tokens = sum(map(len, refs))
    return {point: total / n_tokens for point, total in sums.items()}


def _same_length(model: Model, ids: Sequence[int], refs: Sequence[Sequence[int]]) -> None:
    for row in refs:
        if len(row) != len(ids):
            own, other = ([model.token_string(n) for n in tokens] for tokens in (ids, row))
            raise ShapeError(
                f"resampling puts position for position: the prompt has {len(ids)} tokens, {own},"
                f" and a reference prompt {len(row)}, {other}. Choose prompts of one length."
            )
