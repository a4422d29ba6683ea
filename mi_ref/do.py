"""What can be done to an activation, as calls: ``edits=[(at.z[3], do.zero(heads=[2]))]``.

Each returns an intervention: plain data that acts at the `positions`, `heads`, `neurons` and `rows`
given (indices from either end, slices, or masks of true and false; all of them by default), prints
as the call that made it, and goes to a file with :func:`mi_ref.save_edits`. Places that a site does
not have are refused before any compute. Several at one point act in the order given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypedDict, Unpack

from mi_ref._typing import Array
from mi_ref.attention_edits import Knockout, ScalePattern, SetPattern
from mi_ref.hooks import Hook
from mi_ref.interventions import Places
from mi_ref.value_edits import Add, Apply, Fill, Mean, MeanOver, ProjectOut, Replace, Scale


class Where(TypedDict, total=False):
    """Where an intervention acts; see `mi_ref.interventions.Intervention`."""

    positions: Places
    heads: Places
    neurons: Places
    rows: Places


class EdgesWhere(TypedDict, total=False):
    """Which queries' edges an intervention acts on, in which heads and rows."""

    heads: Places
    rows: Places


def replace(value: Any, **where: Unpack[Where]) -> Replace:
    """Put an array in the activation's place.

    Parameters
    ----------
    value : array or nested sequence
        Broadcasts to the activation; or has one entry for each of `positions`. It is converted to
        the model's dtype.
    **where
        As the module says.
    """
    return Replace(value=value, **where)


def add(value: Any, *, scale: float = 1.0, **where: Unpack[Where]) -> Add:
    """Add `scale` times an array, which is as in `replace`: a steering vector, for one."""
    return Add(value=value, scale=scale, **where)


def scale(factor: float, **where: Unpack[Where]) -> Scale:
    """Multiply with a number."""
    return Scale(factor=factor, **where)


def zero(**where: Unpack[Where]) -> Scale:
    """Put zeros in the activation's place."""
    return Scale(factor=0.0, **where)


def fill(value: float, **where: Unpack[Where]) -> Fill:
    """Put one number in the place of all."""
    return Fill(value=value, **where)


def mean(over: MeanOver | tuple[MeanOver, ...] = "batch", **where: Unpack[Where]) -> Mean:
    """Put the mean over rows, positions or both in the place of each, as this very run has them.

    For the mean of a data set, compute it and use `replace`.
    """
    return Mean(over=(over,) if isinstance(over, str) else over, **where)


def project_out(direction: Any, **where: Unpack[Where]) -> ProjectOut:
    """Take away the part along a direction ``[d_model]``, or of whatever width the site has."""
    return ProjectOut(direction=direction, **where)


def apply(function: Callable[[Array, Hook], Array | None], **where: Unpack[Where]) -> Apply:
    """Call ``function(array, hook)``, whose result counts at the places given. Not for files."""
    return Apply(function=function, **where)


def knockout(queries: Places = None, keys: Places = None, **where: Unpack[EdgesWhere]) -> Knockout:
    """Cut attention edges before the softmax: at ``at.attn_scores``, after any soft-cap.

    Parameters
    ----------
    queries, keys : Places
        Who may no longer look at whom; None for all. A query that is left with nothing to look at
        is an error.
    **where
        Heads and rows.
    """
    return Knockout(queries, keys=keys, **where)


def scale_pattern(
    factor: float,
    queries: Places = None,
    keys: Places = None,
    *,
    renormalise: bool = True,
    **where: Unpack[EdgesWhere],
) -> ScalePattern:
    """Multiply the weight of edges at ``at.pattern``; touched rows sum to one again after it."""
    return ScalePattern(queries, keys=keys, factor=factor, renormalise=renormalise, **where)


def set_pattern(
    weight: float, queries: Places = None, keys: Places = None, **where: Unpack[EdgesWhere]
) -> SetPattern:
    """Give each edge a weight at ``at.pattern``; the other visible keys share what is left."""
    return SetPattern(queries, keys=keys, weight=weight, **where)
