"""Principal components, by singular values of the centred points: exact, and the same every time.

Each component's sign is such that its largest entry is positive, since the decomposition itself
leaves it open.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.backend import Backend
from mi_ref.errors import BackendError, ShapeError
from mi_ref.model import Model
from mi_ref.output import plots
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table

_DRAWN = 6
"""Components that a picture shows: more curves cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Axes:
    """Principal components as arrays in float64."""

    mean: Float[Array, " d"]
    """Mean of the points."""
    components: Float[Array, "k d"]
    """Orthonormal, most variance first."""
    variances: Float[Array, " k"]
    """Along each, with ``n - 1`` in the denominator."""
    shares: Float[Array, " k"]
    """Each component's share of the variance."""
    projections: Float[Array, "n k"]
    """The centred points, projected."""


@dataclass(frozen=True, slots=True, repr=False)
class Pca(Result):
    """Principal components of activations, or of any other points.

    Attributes
    ----------
    axes : Axes
        The components themselves.
    variances, shares : tuple of float
        Variance along each component, and its share of the whole.
    projections : tuple of tuple of float
        By point, then component.
    labels : tuple of str
        What the points are.
    origin : Origin
        The model, without its weights.
    """

    axes: Axes = field(compare=False)
    variances: tuple[float, ...]
    shares: tuple[float, ...]
    projections: tuple[tuple[float, ...], ...]
    labels: tuple[str, ...]
    backend: Backend = field(compare=False)
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per component."""
        table = Table(
            [">component", ">variance", ">share", ">in all"],
            f"principal components of {len(self.labels)} points",
        )
        total = 0.0
        for n, (variance, share) in enumerate(zip(self.variances, self.shares, strict=True), 1):
            total += share
            table.add(n, f"{variance:.4g}", f"{share:.4f}", f"{total:.4f}")
        return table

    def record(self) -> dict[str, Any]:
        """Return variances, projections, and the components themselves."""
        host = self.backend.to_host
        return record_of(
            self,
            "pca",
            labels=list(self.labels),
            variances=self.variances,
            shares=self.shares,
            projections=self.projections,
            mean=host(self.axes.mean).tolist(),
            components=host(self.axes.components).tolist(),
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the projections on the first components as curves over the points."""
        plots.curves(
            path,
            [float(n) for n in range(len(self.labels))],
            {f"PC {n + 1} ({share:.0%})": [row[n] for row in self.projections]
             for n, share in enumerate(self.shares[:_DRAWN])},
            title="Principal components",
            x_label="point",
            y_label="projection",
        )  # fmt: skip


def pca(
    model: Model,
    points: Float[Array, "n d"],
    n_components: int | None = None,
    *,
    labels: Sequence[str] | None = None,
) -> Pca:
    """Return the principal components of points, such as activations over prompts.

    Parameters
    ----------
    model : Model
        Where they come from: for its array library, and the record.
    points : Array
        One per row.
    n_components : int or None
        How many to keep; None for all, ``min(n, d)``.
    labels : sequence of str or None
        What the points are; None numbers them.

    Raises
    ------
    BackendError
        If the array library has no singular value decomposition.
    ShapeError
        If there are fewer than two points, or all are the same, or labels do not fit.
    """
    axes = principal_axes(points, n_components, backend=model.backend)
    names = tuple(map(str, range(points.shape[0])) if labels is None else labels)
    if len(names) != points.shape[0]:
        raise ShapeError(f"{len(names)} labels for {points.shape[0]} points.")
    host = model.backend.to_host
    return Pca(
        axes=axes,
        variances=tuple(host(axes.variances).tolist()),
        shares=tuple(host(axes.shares).tolist()),
        projections=tuple(map(tuple, host(axes.projections).tolist())),
        labels=names,
        backend=model.backend,
        origin=model.origin,
    )


def principal_axes(
    points: Float[Array, "n d"], n_components: int | None = None, *, backend: Backend
) -> Axes:
    """Return the principal components as arrays; see `pca`."""
    xp = backend.xp
    if not hasattr(xp, "linalg"):
        raise BackendError(
            f"PCA needs a singular value decomposition, and the array library of backend"
            f" {backend.name!r} has no linalg: use one that has it, such as 'numpy' or 'cupy'."
        )
    shape = getattr(points, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] < 2:
        given = type(points).__name__ if shape is None else tuple(shape)
        raise ShapeError(f"PCA takes an array of two or more points [n, d], not {given}.")
    most = min(points.shape)
    k = most if n_components is None else n_components
    if not 1 <= k <= most:
        raise ShapeError(f"n_components={k}: points {tuple(points.shape)} have 1 to {most}.")
    x = xp.astype(points, xp.float64, copy=False)
    mean = xp.mean(x, axis=0)
    centred = x - mean
    _, sizes, rows = xp.linalg.svd(centred, full_matrices=False)
    total = xp.sum(sizes * sizes)
    if not float(total) > 0:
        raise ShapeError(f"all {points.shape[0]} points are the same: nothing varies.")
    components = rows[:k, :]
    largest = xp.argmax(xp.abs(components), axis=-1)[:, None]
    components = components * xp.sign(xp.take_along_axis(components, largest, axis=-1))
    variances = sizes[:k] * sizes[:k] / (points.shape[0] - 1)
    shares = sizes[:k] * sizes[:k] / total
    return Axes(mean, components, variances, shares, centred @ components.mT)
