"""Captured activations: a mapping from hook points to arrays, in forward order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mi_ref._typing import Array
from mi_ref.errors import HookError
from mi_ref.hooks.catalog import HookPoints
from mi_ref.hooks.selectors import Selector, resolve
from mi_ref.hooks.sites import Point
from mi_ref.output.tables import Table


class Cache(Mapping[Selector, Array]):
    """The activations that one run captured.

    Keys are points; strings (``"blocks.5.hook_resid_post"``), tuples (``("resid_post", 5)``, or
    unpacked: ``cache["resid_post", 5]``) and negative layers are understood too. Iteration yields
    the points in the order in which the forward pass reached them.

    Parameters
    ----------
    arrays : mapping
        Point to array.
    points : HookPoints
        The model's, to resolve other keys.
    """

    def __init__(self, arrays: Mapping[Point, Array], points: HookPoints) -> None:
        self._arrays = dict(arrays)
        self._points = points

    def __getitem__(self, key: Selector) -> Array:
        point = resolve(key, self._points)
        if point not in self._arrays:
            held = ", ".join(map(repr, self._arrays)) if len(self._arrays) <= 8 else (
                f"{len(self._arrays)} other points"
            )  # fmt: skip
            raise HookError(
                f"{point!r} was not captured; this run holds {held or 'nothing'}."
                f" Ask for it: model.run(..., capture=[{point!r}])."
            )
        return self._arrays[point]

    def get(self, key: Selector, default: Any = None) -> Any:
        """Return the array of `key`, or `default` if it was not captured.

        A key that does not name a point of this model is an error here too.
        """
        return self._arrays.get(resolve(key, self._points), default)

    def __contains__(self, key: object) -> bool:
        return resolve(key, self._points) in self._arrays  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Point]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def table(self) -> Table:
        """Return one row per captured array."""
        table = Table(["at.", "string", "shape", "dtype"])
        for point, array in self._arrays.items():
            table.add(repr(point)[3:], str(point), tuple(array.shape), array.dtype)
        return table

    def __repr__(self) -> str:
        return f"<Cache of {len(self)} activations; print() lists them>"

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()
