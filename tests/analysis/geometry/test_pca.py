"""Principal components compared with NumPy's eigenvectors, with stable signs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, BackendError, Model, ShapeError, get_backend
from mi_ref.analysis.geometry.pca import pca, principal_axes

NUMPY = get_backend("numpy")
LINE = np.array([(1, 0), (2, 0.1), (3, -0.1), (4, 0.05), (5, -0.05)])


def cloud(n: int = 12, d: int = 7, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=(n, d)) * np.arange(1, d + 1) + 5.0


def test_points_along_a_line(tiny: Model) -> None:
    found = pca(tiny, LINE)
    assert np.allclose(np.abs(found.axes.components[0]), [1, 0], atol=0.02)
    assert found.shares[0] > 0.99
    assert sum(found.shares) == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("shape", [(12, 7), (5, 9)])
def test_against_eigenvectors_of_the_covariance(tiny: Model, shape: tuple[int, int]) -> None:
    points = cloud(*shape)
    found = pca(tiny, points, 3)
    values, vectors = np.linalg.eigh(np.cov(points.T))
    assert np.allclose(found.variances, values[::-1][:3], rtol=1e-10)
    assert np.allclose(found.shares, values[::-1][:3] / values.sum(), rtol=1e-10)
    for own, other in zip(found.axes.components, vectors.T[::-1], strict=False):
        assert abs(own @ other) == pytest.approx(1.0, rel=1e-10)
        assert own[np.abs(own).argmax()] > 0
    projected = (points - points.mean(axis=0)) @ found.axes.components.T
    assert np.allclose(found.projections, projected, rtol=1e-10, atol=1e-10)


def test_close_variances_are_told_apart() -> None:
    """candle-mi's fifty steps of power iteration from a random start mix them at random."""
    rng = np.random.default_rng(1)
    turn, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    left, _ = np.linalg.qr(rng.normal(size=(40, 6)) - 0.0)
    left -= left.mean(axis=0)
    left, _ = np.linalg.qr(left)
    sizes = np.array([1.001, 1.0, 0.999, 0.5, 0.4, 0.3])
    axes = principal_axes(left * sizes @ turn.T, 3, backend=NUMPY)
    for n in range(3):
        assert abs(axes.components[n] @ turn[:, n]) == pytest.approx(1.0, abs=1e-9)
    assert np.allclose(axes.variances, sizes[:3] ** 2 / 39, rtol=1e-10)


def test_signs_do_not_depend_on_how_the_points_lie() -> None:
    points = cloud()
    axes = principal_axes(points, backend=NUMPY)
    turned = principal_axes(points[::-1], backend=NUMPY)
    shifted = principal_axes(points + 100.0, backend=NUMPY)
    assert np.allclose(axes.components, turned.components, atol=1e-9)
    assert np.allclose(axes.components, shifted.components, atol=1e-9)
    # Mirrored, the same lines are found, and still point to the side of their largest entry.
    mirrored = principal_axes(-points, backend=NUMPY)
    assert np.allclose(axes.components, mirrored.components, atol=1e-9)
    assert np.allclose(axes.projections, -mirrored.projections, atol=1e-8)


def test_the_points_come_back(tiny: Model) -> None:
    points = cloud().astype(np.float32)
    axes = pca(tiny, points).axes
    assert axes.projections.dtype == np.float64
    again = axes.projections @ axes.components + axes.mean
    assert np.allclose(again, points, rtol=1e-12, atol=1e-12)
    assert np.allclose(axes.components @ axes.components.T, np.eye(7), atol=1e-12)


def test_every_array_library_that_has_it(backend: Backend) -> None:
    points = backend.from_host(cloud())
    if not hasattr(backend.xp, "linalg"):
        with pytest.raises(BackendError, match="has no linalg: use one that has it"):
            principal_axes(points, backend=backend)
        return
    axes = principal_axes(points, 2, backend=backend)
    wanted = principal_axes(cloud(), 2, backend=NUMPY)
    assert np.allclose(backend.to_host(axes.projections), wanted.projections, atol=1e-9)


def test_refusals(tiny: Model, as_users_call: None) -> None:
    with pytest.raises(ShapeError, match=r"two or more points \[n, d\], not \(1, 3\)"):
        pca(tiny, np.ones((1, 3)))
    with pytest.raises(ShapeError, match=r"not \(4,\)"):
        pca(tiny, np.ones(4))
    with pytest.raises(ShapeError, match=r"not list"):
        pca(tiny, [[1.0, 2.0], [2.0, 1.0]])
    with pytest.raises(ShapeError, match="all 4 points are the same"):
        pca(tiny, np.ones((4, 3)))
    with pytest.raises(ShapeError, match=r"n_components=3: points \(5, 2\) have 1 to 2"):
        pca(tiny, LINE, 3)
    with pytest.raises(ShapeError, match="2 labels for 5 points"):
        pca(tiny, LINE, labels=["a", "b"])


def test_table_record_and_picture(tiny: Model, tmp_path: Path) -> None:
    found = pca(tiny, LINE, labels="abcde")
    lines = str(found).splitlines()
    assert lines[-1].split() == ["2", f"{found.variances[1]:.4g}", f"{found.shares[1]:.4f}",
                                 "1.0000"]  # fmt: skip
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["labels"] == list("abcde")
    assert record["projections"] == [list(row) for row in found.projections]
    assert record["components"] == found.axes.components.tolist()
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
