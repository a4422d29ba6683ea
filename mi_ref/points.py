"""Hook sites and points as values: what ``at.resid_post`` and ``at.resid_post[5]`` are."""

from __future__ import annotations

from dataclasses import dataclass
from operator import index
from typing import SupportsIndex, TypeAlias, overload


@dataclass(frozen=True, slots=True, eq=False)
class GlobalSite:
    """A site that occurs once in a forward pass; it is its own point."""

    name: str
    string: str
    axes: tuple[str, ...]

    def __str__(self) -> str:
        return self.string

    def __repr__(self) -> str:
        return f"at.{self.name}"

    @property
    def layer(self) -> None:
        """None: the site belongs to no layer."""
        return None

    @property
    def site(self) -> GlobalSite:
        """The site itself."""
        return self


@dataclass(frozen=True, slots=True, eq=False)
class LayerSite:
    """A site that occurs in every layer: index it by layer to get a point, slice it for several."""

    name: str
    string: str
    """With ``{layer}`` where the number goes."""
    axes: tuple[str, ...]

    # Else Python would count up layers without end: list(at.q), capture=at.q.
    __iter__ = None

    @overload
    def __getitem__(self, layer: SupportsIndex) -> LayerPoint: ...
    @overload
    def __getitem__(self, layer: slice) -> LayerSpan: ...
    def __getitem__(self, layer: SupportsIndex | slice) -> LayerPoint | LayerSpan:
        if isinstance(layer, slice):
            return LayerSpan(self, layer.start, layer.stop, layer.step)
        if isinstance(layer, bool) or not isinstance(layer, SupportsIndex):
            raise TypeError(f"at.{self.name} takes a layer number or a slice, not {layer!r}.")
        return LayerPoint(self, index(layer))

    def __str__(self) -> str:
        return self.string

    def __repr__(self) -> str:
        return f"at.{self.name}"


@dataclass(frozen=True, slots=True)
class LayerPoint:
    """A site in one layer; a negative number counts from the last."""

    site: LayerSite
    layer: int

    def __str__(self) -> str:
        return self.site.string.format(layer=self.layer)

    def __repr__(self) -> str:
        return f"at.{self.site.name}[{self.layer}]"


@dataclass(frozen=True, slots=True)
class LayerSpan:
    """A site in a slice of the layers, settled once the model is known."""

    site: LayerSite
    start: int | None
    stop: int | None
    step: int | None

    def layers(self, n_layers: int) -> range:
        """Return the layers meant in a model of `n_layers`."""
        return range(*slice(self.start, self.stop, self.step).indices(n_layers))

    def __repr__(self) -> str:
        ends = ["" if end is None else str(end) for end in (self.start, self.stop)]
        step = "" if self.step is None else f":{self.step}"
        return f"at.{self.site.name}[{':'.join(ends)}{step}]"


Site: TypeAlias = GlobalSite | LayerSite
Point: TypeAlias = GlobalSite | LayerPoint
