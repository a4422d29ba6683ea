"""The comparisons that the tests make, public so that authors of backends can use them.

``assert_close`` compares an array with the expected one; `GoldenCase` reads the recorded forward
passes of ``golden/``, and `golden_errors` gives a model's error at each of their hooks::

    case = GoldenCase(Path("golden/data/llama2"))
    model = mi_ref.from_pretrained(case.folder, backend="mine", dtype="float64")
    assert max(golden_errors(model, case).values()) <= 1e-12
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mi_ref.backend import Backend
from mi_ref.checkpoints.safetensors import HostArray
from mi_ref.hooks.sites import ALL_SITES
from mi_ref.model import Model


def relative_error(actual: HostArray, desired: HostArray) -> float:
    """Return ``norm(actual - desired) / norm(desired)`` over the finite entries of `desired`.

    Infinite if the others are not the same in both, NaN if `actual` holds one.
    """
    a, b = actual.astype("float64"), desired.astype("float64")
    finite = abs(b) < math.inf
    if not (a[~finite] == b[~finite]).all():
        return math.inf
    size, off = _norm(b[finite]), _norm(a[finite] - b[finite])
    return off / size if size else (0.0 if off == 0 else math.inf)


def assert_close(
    actual: Any, desired: HostArray, *, rel: float, backend: Backend, dtype: str | None = None
) -> None:
    """Compare kind, device, dtype and shape, and only then the values.

    Parameters
    ----------
    actual : Array
        An array of `backend`.
    desired : HostArray
        A NumPy array.
    rel : float
        Bound on `relative_error`.
    backend : Backend
        The one that `actual` has to belong to.
    dtype : str or None
        What `actual` has to be in; None for the dtype of `desired`.

    Raises
    ------
    AssertionError
        Saying what differs; for values, how much and where most.
    """
    like = backend.from_host(desired.astype(dtype or desired.dtype))
    for what, found, wanted in (
        ("type", type(actual), type(like)),
        ("device", getattr(actual, "device", None), like.device),
        ("dtype", getattr(actual, "dtype", None), like.dtype),
        ("shape", tuple(getattr(actual, "shape", ())), tuple(like.shape)),
    ):
        if found != wanted:
            raise AssertionError(f"{what}: expected {wanted}, got {found}")
    found = backend.to_host(actual)
    error = relative_error(found, desired)
    if not error <= rel:
        raise AssertionError(f"relative error {error:.2e} > {rel:.0e}; {_worst(found, desired)}")


@dataclass(frozen=True)
class GoldenCase:
    """One recorded forward pass: a folder below ``golden/``, laid out as its README says."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.name

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The recording's description."""
        content: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text("utf-8"))
        return content

    @property
    def tokens(self) -> list[list[int]]:
        """The prompt, ``[batch, pos]``."""
        tokens: list[list[int]] = self.manifest["tokens"]
        return tokens

    @property
    def hooks(self) -> tuple[str, ...]:
        """Every hook point recorded, in forward order, by TransformerLens' string."""
        return tuple(self.manifest["hooks"])

    def expected(self, hook: str) -> HostArray:
        """Return the float64 array recorded at `hook`."""
        return self._arrays[self.manifest["same_as"].get(hook, hook)]

    @cached_property
    def _arrays(self) -> dict[str, HostArray]:
        # The reader of checkpoints refuses the minus infinity of masked scores as damage.
        from safetensors.numpy import load_file

        arrays: dict[str, HostArray] = load_file(self.folder / "expected.safetensors")
        return arrays


def golden_cases(folder: Path) -> tuple[GoldenCase, ...]:
    """Return every case below `folder`, by name."""
    return tuple(GoldenCase(path.parent) for path in sorted(folder.glob("*/manifest.json")))


def golden_errors(model: Model, case: GoldenCase) -> dict[str, float]:
    """Return the `relative_error` at every hook of `case`, in forward order."""
    run = model.run(case.tokens, capture=case.hooks)
    host = model.backend.to_host
    return {hook: relative_error(host(run[hook]), case.expected(hook)) for hook in case.hooks}


def site_name(hook: str) -> str:
    """Return the name that a hook's string has below ``at``: ``"attn_out"`` for any layer's."""
    number = hook.split(".")[1] if hook.startswith("blocks.") else ""
    return next(s.name for s in ALL_SITES if s.string.replace("{layer}", number) == hook)


def _norm(x: HostArray) -> float:
    return float(math.hypot(*x.reshape(-1).tolist()))


def _worst(actual: HostArray, desired: HostArray) -> str:
    a, b = actual.astype("float64").reshape(-1), desired.astype("float64").reshape(-1)
    # The difference of equal infinities is NaN, which is not an error; NaN itself is the worst.
    off = [0.0 if x == y else abs(x - y) if x == x else math.inf
           for x, y in zip(a.tolist(), b.tolist(), strict=True)]  # fmt: skip
    place = flat = max(range(len(off)), key=off.__getitem__)
    index: list[int] = []
    for size in reversed(desired.shape):
        place, last = divmod(place, size)
        index.insert(0, last)
    return f"worst at {tuple(index)}: expected {b[flat]}, got {a[flat]}"
