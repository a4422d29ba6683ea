"""Hook sites and points as values: what ``at.resid_post`` and ``at.resid_post[5]`` are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import SupportsIndex, TypeAlias, overload

from mi_ref.errors import ArgumentError
from mi_ref.whole_numbers import whole_number


@dataclass(frozen=True, slots=True, eq=False)
class _Described:
    """What every site says of itself.

    Attributes
    ----------
    name : str
        What it is called below ``at``.
    string : str
        Its spelling in TransformerLens; with ``{layer}`` where a layer's number goes.
    axes : tuple of str
        The activation's axes.
    doc : str
        What the activation is.
    editable : bool
        Whether something reads the activation, so that an edit has an effect.
    lazy : bool
        Whether it is computed only if something asks for it.
    by_position : bool
        Whether edits are called once for each position, with that position alone.
    """

    name: str
    string: str
    axes: tuple[str, ...]
    doc: str = ""
    editable: bool = field(default=True, kw_only=True)
    lazy: bool = field(default=False, kw_only=True)
    by_position: bool = field(default=False, kw_only=True)

    # Sites are keys of the dictionaries that every hooked activation is looked up in: a string's
    # hash is cached, and most look-ups end at identity.
    def __hash__(self) -> int:
        return hash(self.string)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, _Described):
            return NotImplemented
        return (type(self), self.name, self.string, self.axes) == (
            type(other), other.name, other.string, other.axes
        )  # fmt: skip

    def __str__(self) -> str:
        return self.string

    def __repr__(self) -> str:
        return f"at.{self.name}"


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class GlobalSite(_Described):
    """A site that occurs once in a forward pass; it is its own point."""

    @property
    def layer(self) -> None:
        """None: the site belongs to no layer."""
        return None

    @property
    def site(self) -> GlobalSite:
        """The site itself."""
        return self


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class LayerSite(_Described):
    """A site that occurs in every layer: index it by layer to get a point, slice it for several."""

    # Else Python would count up layers without end: list(at.q), capture=at.q.
    __iter__ = None

    @overload
    def __getitem__(self, layer: SupportsIndex) -> LayerPoint: ...
    @overload
    def __getitem__(self, layer: slice) -> LayerSpan: ...
    def __getitem__(self, layer: SupportsIndex | slice) -> LayerPoint | LayerSpan:
        if isinstance(layer, slice):
            return LayerSpan(self, layer.start, layer.stop, layer.step)
        try:
            return LayerPoint(self, whole_number(layer))
        except TypeError:
            raise ArgumentError(
                f"at.{self.name}[{layer!r}]: expected a layer number or a slice."
            ) from None


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
    """A site in a slice of the layers, resolved once the model is known."""

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
