"""Which parts matter on many prompts: ablations one at a time, averaged over a data set.

An effect on one prompt may be that prompt's own. Here each part is ablated on every prompt; what
stands in its place comes from the data set's other prompts, or is zero.

Source: Wang et al., arXiv:2211.00593 (mean ablation over a data set); Chan et al., "Causal
scrubbing" (2022), for resampling.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar, Unpack

from mi_ref.analysis.ablation.dataset_effects import DatasetAblation, PartEffects
from mi_ref.analysis.ablation.effects import Measurement, cells_of, over_draws, read
from mi_ref.analysis.ablation.parts import Method, Part, What, every_part, points_of
from mi_ref.analysis.ablation.replacements import from_others
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt, place, places
from mi_ref.analysis.sweeps.prompts import PromptCells, sweep_prompts
from mi_ref.analysis.sweeps.sweep import SweepOptions
from mi_ref.edits.intervention import Places
from mi_ref.errors import ShapeError
from mi_ref.model import Model
from mi_ref.text.prompt import Prompt

T = TypeVar("T")


def dataset_ablation(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    what: What = "head",
    method: Method = "zero",
    targets: Sequence[str | int] | None = None,
    others: Sequence[str | int] | None = None,
    layers: Places = None,
    indices: Places = None,
    positions: Places = None,
    position: int = -1,
    draws: int = 1,
    seed: int = 0,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> DatasetAblation:
    """Ablate parts one at a time on every prompt of a data set.

    Parameters
    ----------
    model : Model
        What to look into.
    prompts : sequence of str, or of sequence of int
        At least two, all different, of any lengths.
    what, layers, indices, prepend_bos
        As for `mi_ref.analysis.ablation.prompt.ablation`.
    method : {"zero", "mean", "resample"}
        Mean: over all tokens of all other prompts, special ones included; the prompt's own take no
        part. Resample: what the part is, position by position, on another prompt of as many
        tokens.
    targets, others : sequence of str or int, or None
        One for each prompt: the tokens whose logit difference to follow; without `others`, the
        targets' logits.
    positions : Places
        Where to ablate in each prompt; None for everywhere.
    position : int
        Where to read the prediction in each prompt.
    draws, seed : int
        For resampling: how many partners each prompt gets, drawn with replacement.
    **options
        As for `mi_ref.analysis.sweep`: ``rows``, ``executor``, ``resume``; one file for all.

    Raises
    ------
    HookError
        If the model has no such parts.
    ShapeError
        If there are fewer than two prompts, two are the same, or a resampled one has no other of
        its length; if targets or others are not one for each prompt, or a position lies outside.
    SweepError
        If the file to resume from is another sweep's.

    Notes
    -----
    Held at once are every prompt's log-probabilities, and when resampling what every partner has
    at the points of all parts; name fewer `layers` where that is too much.
    """
    if targets is None and others is not None:
        raise ShapeError(f"others={others!r} are compared with targets: say targets= too.")
    ids = _different(model, prompts, prepend_bos)
    wanted = _tokens("targets", targets, len(ids)), _tokens("others", others, len(ids))
    parts = every_part(model, what, layers, indices)
    read_at = tuple(place(position, len(row), "position") for row in ids)
    ablated = tuple(places(positions, len(row), "positions") for row in ids)
    given = from_others(model, ids, points_of(parts), method, draws=draws, seed=seed)
    readings = [
        read(model, row, place, target, other)
        for row, place, target, other in zip(ids, read_at, *wanted, strict=True)
    ]
    swept = [
        PromptCells(row, cells_of(parts, values, where), reading.metrics, place)
        for row, values, where, reading, place in zip(
            ids, given.values, ablated, readings, read_at, strict=True
        )
    ]
    found = sweep_prompts(model, swept, options)
    return DatasetAblation(
        effects=_effects(parts, readings, found, draws=len(given.values[0])),
        what=what,
        method=method,
        targets=None if targets is None else _known(r.tokens[0] for r in readings),
        others=None if others is None else _known(r.tokens[1] for r in readings),
        intact=None if targets is None else _known(r.intact for r in readings),
        positions=read_at,
        ablated=ablated,
        partners=given.partners,
        seed=whole(seed, "seed") if method == "resample" else None,
        tokens=ids,
        origin=model.origin,
    )


def _effects(
    parts: Sequence[Part],
    readings: Sequence[Measurement],
    found: Sequence[Sequence[Sequence[float]]],
    draws: int,
) -> tuple[PartEffects, ...]:
    """Return each part's effects on every prompt."""
    means = [over_draws(cells, draws) for cells in found]  # by prompt, part, metric
    intact = [reading.intact for reading in readings]
    effects = []
    for number, part in enumerate(parts):
        own = [rows[number] for rows in means]
        changes = [row[1] - was for row, was in zip(own, intact, strict=True) if was is not None]
        kls = tuple(row[0] for row in own)
        effects.append(PartEffects(part.layer, part.index, kls, tuple(changes) or None))
    return tuple(effects)


def _different(
    model: Model, prompts: Sequence[Prompt], prepend_bos: bool | None
) -> tuple[tuple[int, ...], ...]:
    """Return the prompts' token ids.

    Raises
    ------
    ShapeError
        If there are fewer than two, or two are the same tokens.
    """
    if isinstance(prompts, str) or len(prompts) < 2:
        raise ShapeError(f"prompts={prompts!r}: name two or more; of one prompt, call ablation.")
    ids = tuple(one_prompt(model, prompt, prepend_bos) for prompt in prompts)
    same = [(ids.index(row), n) for n, row in enumerate(ids) if ids.index(row) != n]
    if same:
        listed = ", ".join(f"{n} and {m}" for n, m in same)
        raise ShapeError(
            f"prompts {listed} are the same tokens: each counts once, and none stands in for"
            " itself. Leave the repetitions out."
        )
    return ids


def _tokens(
    what: str, given: Sequence[str | int] | None, n_prompts: int
) -> Sequence[str | int | None]:
    if given is None:
        return (None,) * n_prompts
    if isinstance(given, str) or not hasattr(given, "__len__") or len(given) != n_prompts:
        raise ShapeError(f"{what}={given!r}: name one token for each of the {n_prompts} prompts.")
    return given


def _known(values: Iterable[T | None]) -> tuple[T, ...]:
    return tuple(value for value in values if value is not None)
