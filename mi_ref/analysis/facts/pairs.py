"""Pairs of prompts about two facts, and which of many a model can take.

A pair that does not fit is never dropped in silence: the faults of all pairs come in one error, or,
if the caller asks for it, the result records what was left out and why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from mi_ref.analysis.arguments.prompts import PromptPair, places, read_pair
from mi_ref.analysis.geometry.token_positions import token_positions
from mi_ref.edits.intervention import Places
from mi_ref.errors import PairsError, ShapeError, TokenError
from mi_ref.model import Model
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True)
class FactPair:
    """A prompt about one subject, and one of as many tokens about another."""

    prompt: Prompt
    counterfactual: Prompt
    subject: str | Places = None
    """A part of the prompt's text that occurs in it once, or positions; None for those at which
    the prompts differ."""
    answer: str | int | None = None
    """What is right after the prompt: an id or exactly one token's text; None for what the model
    finds likeliest."""
    other: str | int | None = None
    """The same for the counterfactual."""


PairLike: TypeAlias = FactPair | tuple[Prompt, Prompt]
"""A pair, or its two prompts alone."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A pair that an analysis went without."""

    number: int
    """Among those given, from 0."""
    reason: str


def counted(n_pairs: int, left_out: Sequence[LeftOut]) -> str:
    """Return how many pairs there are, and how many were left out, in words."""
    return f"{n_pairs} pairs" + (f", {len(left_out)} left out" if left_out else "")


T = TypeVar("T")


def fitting(
    pairs: Iterable[PairLike], read: Callable[[FactPair], T], *, skip: bool
) -> tuple[list[tuple[int, T]], tuple[LeftOut, ...]]:
    """Return what `read` makes of each pair that fits, with its number, and those left out.

    Parameters
    ----------
    pairs : iterable of FactPair or (prompt, counterfactual)
        At least one has to fit.
    read : callable
        Raises a TokenError or ShapeError for a pair that does not fit.
    skip : bool
        Whether others may be left out.

    Raises
    ------
    PairsError
        If a pair does not fit and `skip` is false, or none fits: with all reasons, by number.
    """
    given = [_pair(pair, number) for number, pair in enumerate(pairs)]
    kept, faults = list[tuple[int, T]](), list[LeftOut]()
    for number, pair in enumerate(given):
        try:
            kept.append((number, read(pair)))
        except (TokenError, ShapeError) as error:
            faults.append(LeftOut(number, str(error)))
    if not given:
        raise PairsError("there are no pairs: give at least one.")
    if faults and not (skip and kept):
        listed = "\n".join(f"  {fault.number}: {fault.reason}" for fault in faults)
        step = "Correct them, or leave them out: skip=True, --skip on the command line."
        step = step if kept else "None is left."
        raise PairsError(
            f"{len(faults)} of {len(given)} pairs do not fit, counted from 0:\n{listed}\n{step}"
        )
    return kept, tuple(faults)


def _pair(given: PairLike, number: int) -> FactPair:
    """Return a pair as a FactPair.

    Raises
    ------
    PairsError
        If it is not two prompts.
    """
    if isinstance(given, FactPair):
        return given
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 2:
        raise PairsError(
            f"pair {number}, {given!r}, is not two prompts: pairs are a sequence of (prompt,"
            " counterfactual) or FactPair."
        )
    return FactPair(*given)


def read_fact_pair(
    model: Model, pair: FactPair, prepend_bos: bool | None
) -> tuple[PromptPair, tuple[int, ...]]:
    """Return a pair's tokens and its subject's positions.

    Raises
    ------
    TokenError
        If the prompts differ in length or not at all, or not up to the subject's end.
    ShapeError
        If positions lie outside.
    """
    names = ("prompt", "counterfactual")
    read = read_pair(model, pair.prompt, pair.counterfactual, names=names, prepend_bos=prepend_bos)
    return read, _subject_positions(model, pair, read, prepend_bos)


def _subject_positions(
    model: Model, pair: FactPair, read: PromptPair, prepend_bos: bool | None
) -> tuple[int, ...]:
    subject, differing = pair.subject, read.differing()
    if subject is None:
        return differing
    if not isinstance(subject, str):
        found = tuple(sorted(places(subject, len(read.first), "subject")))
    elif isinstance(pair.prompt, str):
        labelled = token_positions(
            model, pair.prompt, {"subject": subject}, prepend_bos=prepend_bos
        )
        found = labelled.positions("subject")
    else:
        raise TokenError(
            f"subject={subject!r} is text, but the prompt is token ids: name its positions."
        )
    if min(differing) > found[-1]:
        raise TokenError(
            f"the prompts differ from position {min(differing)} on, after the subject"
            f" {subject!r} at {list(found)}: there both are the same, so that nothing can be"
            " patched. Name the subject in which they differ."
        )
    return found
