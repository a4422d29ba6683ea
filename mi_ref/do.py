"""Interventions as calls: ``edits=[(at.z[3], do.zero(heads=[2]))]``.

Each returns an intervention: plain data that acts at the `positions`, `heads`, `neurons`, `rows`
and `keys` given, prints as the call that made it, and is saved by :func:`mi_ref.save_edits`. Any
other axis of a site is restricted by its name: ``do.zero(where={"expert": [1]})``. Places are
indices from either end, slices, or masks of true and false; all of them by default. Places that a
site does not have are refused before any compute. Several interventions at one point act in the
order given.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypedDict, Unpack

from mi_ref._typing import Array
from mi_ref.edits.edges import Knockout, ScalePattern, SetPattern
from mi_ref.edits.intervention import Places
from mi_ref.edits.values import Add, Apply, Fill, Mean, MeanOver, ProjectOut, Replace, Scale
from mi_ref.edits.where import where_of
from mi_ref.hooks.capture import Hook


class Where(TypedDict, total=False):
    """Where an intervention acts; see `mi_ref.edits.intervention.Intervention`."""

    positions: Places
    heads: Places
    neurons: Places
    rows: Places
    keys: Places
    where: Mapping[str, Places] | None


class EdgesWhere(TypedDict, total=False):
    """In which heads and rows an intervention on edges acts."""

    heads: Places
    rows: Places
    where: Mapping[str, Places] | None


def replace(value: Any, **where: Unpack[Where]) -> Replace:
    """Replace the activation by an array.

    Parameters
    ----------
    value : array or nested sequence
        Broadcasts to the activation; or has one entry for each of `positions`. It is converted to
        the model's dtype.
    **where
        Keywords that restrict it, and ``where=`` for any axis; see :mod:`mi_ref.do`.
    """
    return Replace(value=value, where=where_of(**where))


def add(value: Any, *, scale: float = 1.0, **where: Unpack[Where]) -> Add:
    """Add `scale` times an array, such as a steering vector; see `replace` for its shape."""
    return Add(value=value, scale=scale, where=where_of(**where))


def scale(factor: float, **where: Unpack[Where]) -> Scale:
    """Multiply by a number."""
    return Scale(factor=factor, where=where_of(**where))


def zero(**where: Unpack[Where]) -> Scale:
    """Set the activation to zero."""
    return Scale(factor=0.0, where=where_of(**where))


def fill(value: float, **where: Unpack[Where]) -> Fill:
    """Set every value to one number."""
    return Fill(value=value, where=where_of(**where))


def mean(over: MeanOver | tuple[MeanOver, ...] = "batch", **where: Unpack[Where]) -> Mean:
    """Replace each value by this run's mean over rows, positions or both.

    For the mean over a data set, compute it and use `replace`.
    """
    return Mean(over=(over,) if isinstance(over, str) else over, where=where_of(**where))


def project_out(direction: Any, **where: Unpack[Where]) -> ProjectOut:
    """Remove the component along a direction ``[d_model]``, or as wide as the site's last axis."""
    return ProjectOut(direction=direction, where=where_of(**where))


def apply(function: Callable[[Array, Hook], Array | None], **where: Unpack[Where]) -> Apply:
    """Call ``function(array, hook)`` and use its result at the places given. Not for files."""
    return Apply(function=function, where=where_of(**where))


def knockout(queries: Places = None, keys: Places = None, **where: Unpack[EdgesWhere]) -> Knockout:
    """Cut attention edges before the softmax: at ``at.attn_scores``, after any soft-cap.

    Parameters
    ----------
    queries, keys : Places
        Which queries may no longer look at which keys; None for all. A query that is left with
        nothing to look at is an error.
    **where
        Heads and rows.
    """
    return Knockout(where=where_of(positions=queries, keys=keys, **where))


def scale_pattern(
    factor: float,
    queries: Places = None,
    keys: Places = None,
    *,
    renormalise: bool = True,
    **where: Unpack[EdgesWhere],
) -> ScalePattern:
    """Multiply the weight of edges at ``at.pattern``, and rescale touched rows to sum to one."""
    edges = where_of(positions=queries, keys=keys, **where)
    return ScalePattern(factor=factor, renormalise=renormalise, where=edges)


def set_pattern(
    weight: float, queries: Places = None, keys: Places = None, **where: Unpack[EdgesWhere]
) -> SetPattern:
    """Set the weight of edges at ``at.pattern``; the other visible keys share what is left."""
    return SetPattern(weight=weight, where=where_of(positions=queries, keys=keys, **where))
