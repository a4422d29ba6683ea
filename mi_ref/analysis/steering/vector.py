"""Steering vectors from contrasting prompts.

The vector is the mean activation over some prompts less that over others, at one site. Adding it
while another prompt is read should push that one the same way; `dose_response` tells how far.

Source: Turner et al. 2023, arXiv:2308.10248; Rimsky et al. 2024, arXiv:2312.06681.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from mi_ref import do
from mi_ref._typing import Array
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt
from mi_ref.backend import Backend
from mi_ref.edits.values import Add
from mi_ref.errors import ArgumentError, HookError, ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.points import GlobalSite, LayerPoint
from mi_ref.hooks.selectors import Selector, resolve
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.prompt import Prompt

Position = int | Literal["mean"]


@dataclass(frozen=True, slots=True, repr=False)
class SteeringVector(Result):
    """A direction that tells some prompts from others.

    Attributes
    ----------
    vector : Array
        In float64, of the site's axes after batch and pos; times 1 / `norm` if `normalised`.
    norm : float
        Norm of the difference of means before any normalising, in the activation's own units.
    mean_norms : tuple of float
        Norms of the mean activation over the positive and the negative prompts.
    cosine : float
        Between those two means: near 1 where they hardly differ.
    point : LayerPoint or GlobalSite
        Where it was read, and where `edit` belongs.
    position : int or "mean"
        Where in each prompt.
    normalised : bool
        Whether `vector` has length one.
    positive, negative : tuple of tuple of int
        The prompts' tokens.
    """

    vector: Array = field(compare=False)
    norm: float
    mean_norms: tuple[float, float]
    cosine: float
    point: LayerPoint | GlobalSite
    position: Position
    normalised: bool
    positive: tuple[tuple[int, ...], ...]
    negative: tuple[tuple[int, ...], ...]
    backend: Backend = field(compare=False)
    origin: Origin = field(compare=False)

    def edit(self, scale: float = 1.0, **where: Any) -> tuple[LayerPoint | GlobalSite, Add]:
        """Return the edit that adds it: ``edits=[vector.edit(2.0, positions=[-1])]``."""
        return self.point, do.add(self.vector, scale=scale, **where)

    def table(self) -> Table:
        """Return the lengths of the means and of their difference."""
        table = Table(["at", ">length"], f"{self.point!r}, position {self.position}")
        table.add(f"mean of {len(self.positive)} positive prompts", f"{self.mean_norms[0]:.4f}")
        table.add(f"mean of {len(self.negative)} negative prompts", f"{self.mean_norms[1]:.4f}")
        table.add("their difference", f"{self.norm:.4f}")
        table.add("cosine of the means", f"{self.cosine:.4f}")
        return table

    def record(self) -> dict[str, Any]:
        """Return everything, the vector too."""
        return record_of(
            self,
            "steering_vector",
            [*self.positive, *self.negative],
            n_positive=len(self.positive),
            point=str(self.point),
            position=self.position,
            normalised=self.normalised,
            norm=self.norm,
            mean_norms=list(self.mean_norms),
            cosine=self.cosine,
            vector=self.backend.to_host(self.vector).tolist(),
        )


def steering_vector(
    model: Model,
    positive: Sequence[Prompt],
    negative: Sequence[Prompt],
    point: Selector,
    *,
    position: Position = -1,
    normalise: bool = False,
    prepend_bos: bool | None = None,
) -> SteeringVector:
    """Return the mean activation over `positive` prompts less that over `negative` ones.

    Parameters
    ----------
    model : Model
        What to look into.
    positive, negative : sequence of prompts
        Texts or token ids, of any lengths.
    point : Selector
        One point with positions, ``at.resid_post[3]``.
    position : int or "mean"
        A position of each prompt, from either end; or the mean over all tokens, special ones too.
    normalise : bool
        Whether to divide by the length, so that scales compare between sites.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If the point has no positions.
    ShapeError
        If a set is empty, a prompt lacks the position, or the means do not differ.
    """
    where = resolve(point, model.hook_points)
    if where.site.axes[1] != "pos":
        raise HookError(f"{where!r} has axes {' '.join(where.site.axes)}: no activation per token.")
    if isinstance(position, str) and position != "mean":
        raise ArgumentError(f"position={position!r}: expected a number or 'mean'.")
    position = position if isinstance(position, str) else whole(position, "position")
    xp, host = model.backend.xp, model.backend.to_host
    rows, means = [], []
    for prompts, what in ((positive, "positive"), (negative, "negative")):
        if isinstance(prompts, str) or not len(prompts):
            raise ShapeError(f"{what}={prompts!r}: it is a sequence of prompts, at least one.")
        ids = [one_prompt(model, each, prepend_bos) for each in prompts]
        rows.append(tuple(ids))
        means.append(_mean(model, ids, where, position))
    difference = means[0] - means[1]
    norm, *norms = (float(host(xp.sqrt(xp.sum(x * x)))) for x in (difference, *means))
    if norm == 0.0:
        raise ShapeError(f"the two sets do not differ at {where!r}: there is nothing to steer by.")
    product = float(host(xp.sum(means[0] * means[1])))
    return SteeringVector(
        vector=difference / norm if normalise else difference,
        norm=norm,
        mean_norms=(norms[0], norms[1]),
        cosine=product / (norms[0] * norms[1]) if norms[0] * norms[1] else 0.0,
        point=where,
        position=position,
        normalised=normalise,
        positive=rows[0],
        negative=rows[1],
        backend=model.backend,
        origin=model.origin,
    )


def _mean(
    model: Model, prompts: Sequence[Sequence[int]], point: LayerPoint | GlobalSite, where: Position
) -> Array:
    """Return the mean over prompts in float64; one prompt is read at a time."""
    xp, found = model.backend.xp, []
    for ids in prompts:
        if where != "mean" and not -len(ids) <= where < len(ids):
            raise ShapeError(f"position={where}: a prompt has {len(ids)} tokens.")
        wanted = capture(point, pos=None if where == "mean" else where)
        inside = isinstance(point, LayerPoint) or point in (at.embed, at.pos_embed)
        run = model.run(ids, capture=[wanted], logits="none" if inside else "all")
        found.append(xp.mean(xp.astype(run[point], xp.float64), axis=(0, 1)))
    return xp.mean(xp.stack(found), axis=0)
