"""Which hook points a model has, with their shapes, and why it lacks the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from mi_ref.errors import ArgumentError, HookError
from mi_ref.hooks.sites import ALL_SITES, GlobalSite, LayerSite, Point, Site
from mi_ref.output.tables import Table

_KNOWN = frozenset(ALL_SITES)


@dataclass(frozen=True, slots=True)
class HookPoint:
    """One place of one model that can be read and changed."""

    point: Point
    axes: tuple[str, ...]
    shape: tuple[int | str, ...]
    """Sizes; ``"batch"``, ``"pos"`` and ``"key_pos"`` are unknown until a prompt is known."""

    @property
    def editable(self) -> bool:
        """Whether an edit here has an effect."""
        return self.point.site.editable

    @property
    def lazy(self) -> bool:
        """Whether it is computed only if something asks for it."""
        return self.point.site.lazy

    def sizes(self, batch: int, pos: int, n_keys: int | None = None) -> tuple[int, ...]:
        """Return the concrete shape for a prompt of that size.

        Parameters
        ----------
        batch, pos : int
            Rows and positions of the prompt.
        n_keys : int or None
            Positions that its queries can look at; None for the prompt's own.
        """
        known = {"batch": batch, "pos": pos, "key_pos": pos if n_keys is None else n_keys}
        return tuple(known[size] if isinstance(size, str) else size for size in self.shape)


class HookPoints(Sequence[HookPoint]):
    """Every hook point of a model in forward order; prints as a table.

    Parameters
    ----------
    points : tuple of HookPoint
        Those that the model has.
    absent : mapping
        Points that this architecture does not have, each with the reason.
    n_layers : int
        Layers of the model.
    listed : tuple of Site
        Every site that the table shows, present or absent, in forward order.
    """

    def __init__(
        self,
        points: tuple[HookPoint, ...],
        absent: Mapping[Point, str],
        n_layers: int,
        listed: tuple[Site, ...] = ALL_SITES,
    ) -> None:
        self._points = points
        self.listed = listed
        self.added = tuple(site for site in listed if site not in _KNOWN)
        self._by_point = {entry.point: entry for entry in points}
        self.sites = frozenset(entry.point.site for entry in points)
        self._absent = dict(absent)
        self.n_layers = n_layers

    @overload
    def __getitem__(self, index: int) -> HookPoint: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[HookPoint]: ...
    def __getitem__(self, index: int | slice) -> HookPoint | Sequence[HookPoint]:
        return self._points[index]

    def __len__(self) -> int:
        return len(self._points)

    def __iter__(self) -> Iterator[HookPoint]:
        return iter(self._points)

    def __contains__(self, item: object) -> bool:
        return item in self._by_point if isinstance(item, Point) else item in self._points

    def at(self, point: Point) -> HookPoint:
        """Return the entry of a point, its layer counted from the front.

        Raises
        ------
        HookError
            If this model does not have it.
        """
        if point not in self._by_point:
            raise HookError(f"{point!r} is not among this model's hook points.")
        return self._by_point[point]

    def absence(self, point: Point | Site) -> str | None:
        """Return why this model lacks a point, or a site in every layer; None if it does not."""
        if not isinstance(point, LayerSite):
            return self._absent.get(point)
        reason = None
        for layer in reversed(range(self.n_layers)):
            # Asked for every edit of a sweep: mostly the first look-up finds that it is there.
            reason = self._absent.get(point[layer])
            if reason is None:
                return None
        return reason

    def with_sites(
        self,
        *added: Site,
        sizes: Mapping[str, int] | None = None,
        layers: Iterable[int] | None = None,
        after: Site | None = None,
    ) -> HookPoints:
        """Return these points and those of further sites, which behave like any other.

        A sparse dictionary, say, adds the site of its features; the code that computes them calls
        ``tap(site, features)``::

            features = LayerSite(
                "features", "blocks.{layer}.hook_features", ("batch", "pos", "feature"), "…"
            )
            points = model.hook_points.with_sites(features, sizes={"feature": 4096})
            model = dataclasses.replace(model, hook_points=points)

        Parameters
        ----------
        *added : Site
            In forward order. The first axis is ``batch``; strings of layers' sites begin with
            ``blocks.{layer}.``.
        sizes : mapping or None
            Sizes of the axes that this model does not have already.
        layers : iterable of int or None
            Where the sites of layers are; None for every layer.
        after : Site or None
            The site that they follow; None for the end of each layer, or of the pass.

        Raises
        ------
        ArgumentError
            If a name is taken, an axis has no size, or a layer does not exist.
        """
        chosen = range(self.n_layers) if layers is None else sorted(set(layers))
        if outside := [n for n in chosen if not 0 <= n < self.n_layers]:
            raise ArgumentError(f"layers={outside}: expected layers 0 to {self.n_layers - 1}.")
        if after is not None and after not in self.sites:
            raise ArgumentError(f"after={after!r}: expected a site of this model.")
        entries, listed, absent = list(self._points), list(self.listed), dict(self._absent)
        for site in added:
            self._refuse_site(site, listed)
            there = [site] if isinstance(site, GlobalSite) else [site[n] for n in chosen]
            for point in there:
                known = self._sizes(point.layer) | dict(sizes or {})
                if missing := [axis for axis in site.axes if axis not in known]:
                    raise ArgumentError(
                        f"{site!r}: axis {missing[0]!r} has no size in this model. Give one:"
                        f" sizes={{{missing[0]!r}: …}}."
                    )
                entry = HookPoint(point, site.axes, tuple(known[axis] for axis in site.axes))
                entries.insert(_place(entries, point, after), entry)
            if isinstance(site, LayerSite):
                others = (site[n] for n in range(self.n_layers) if n not in chosen)
                absent |= dict.fromkeys(others, "it was added to other layers only")
            listed.insert(len(listed) if after is None else listed.index(after) + 1, site)
            after = site if after is not None else None
        return HookPoints(tuple(entries), absent, self.n_layers, tuple(listed))

    def _refuse_site(self, site: Site, listed: Sequence[Site]) -> None:
        if any(site.name == other.name or site.string == other.string for other in listed):
            raise ArgumentError(f"{site!r} ({site.string}): a site of that name exists already.")
        layered = site.string.startswith("blocks.{layer}.")
        if layered != isinstance(site, LayerSite) or site.axes[:1] != ("batch",):
            raise ArgumentError(
                f"{site!r}: expected a first axis 'batch', and a string that begins with"
                f" 'blocks.{{layer}}.' if the site is in every layer; got {site.axes} and"
                f" {site.string!r}."
            )

    def _sizes(self, layer: int | None) -> dict[str, int | str]:
        """Return the sizes of the axes that the points of one layer have, and those outside."""
        return {
            axis: size
            for entry in self._points
            if entry.point.layer in (None, layer)
            for axis, size in zip(entry.axes, entry.shape, strict=True)
        }

    def table(
        self, batch: int | None = None, pos: int | None = None, n_keys: int | None = None
    ) -> Table:
        """Return one row per site: name, string, axes, shape, what can be done, and meaning.

        Parameters
        ----------
        batch, pos, n_keys : int or None
            Sizes of a prompt, to see concrete shapes, and how many keys its queries can look at,
            if these are not its own positions.
        """
        table = Table(["at.", "string", "axes", "shape", "edit", "meaning"])
        known = {"batch": batch, "pos": pos, "key_pos": pos if n_keys is None else n_keys}
        first = {entry.point.site: entry for entry in reversed(self._points)}
        missing: dict[str, list[Site]] = {}
        for site in self.listed:
            if (reason := self.absence(site)) is not None:
                missing.setdefault(reason, []).append(site)
        for site in self.listed:
            reason = self.absence(site) or ""
            if site in first:
                entry = first[site]
                sizes = [str(known.get(str(size)) or size) for size in entry.shape]
                meaning = site.doc + self._only_in(site)
                table.add(
                    _shown(site), self._string(site), " ".join(entry.axes), " × ".join(sizes),
                    "yes" if entry.editable else "no", meaning,
                )  # fmt: skip
            elif reason and len(missing[reason]) == 1:
                table.add(_shown(site), self._string(site), "", "", "", f"absent: {reason}")
            elif reason and missing[reason][0] is site:
                # One row for all sites that are absent for the same reason.
                names = ", ".join(each.name for each in missing[reason])
                count = f"({len(missing[reason])} absent)"
                table.add(count, "", "", "", "", f"absent: {names}: {reason}")
        return table

    def _string(self, site: Site) -> str:
        return site.string.replace("{layer}", f"{{0..{self.n_layers - 1}}}")

    def _only_in(self, site: Site) -> str:
        """Say which layers have a site that not all of them have."""
        if isinstance(site, GlobalSite):
            return ""
        layers = [n for n in range(self.n_layers) if site[n] not in self._absent]
        listed = ", ".join(map(str, layers))
        return "" if len(layers) == self.n_layers else f" Only in layers {listed}."

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        return f"<{len(self)} hook points in {self.n_layers} layers; print() shows them>"

    def _repr_html_(self) -> str:
        return self.table().html()


def _place(entries: Sequence[HookPoint], point: Point, after: Site | None) -> int:
    """Return where a new point goes: after a site in its layer, or at the layer's end."""
    own = [n for n, entry in enumerate(entries) if entry.point.layer == point.layer]
    wanted = [n for n in own if entries[n].point.site == after]
    return 1 + (wanted or own or [len(entries) - 1])[-1]


def _shown(site: Site) -> str:
    return f"{site.name}[l]" if isinstance(site, LayerSite) else site.name
