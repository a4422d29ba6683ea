"""Which hook points a model has, with their shapes, and why it lacks the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import overload

from mi_ref.absence import absent_global, absent_in_layer
from mi_ref.config import Attention, DecoderConfig, Experts
from mi_ref.errors import HookError
from mi_ref.sites import ALL_SITES, DERIVED, LAZY, GlobalSite, LayerSite, Point, Site, at, meanings
from mi_ref.tables import Table


@dataclass(frozen=True, slots=True)
class HookPoint:
    """One place of one model that can be read and changed."""

    point: Point
    axes: tuple[str, ...]
    shape: tuple[int | str, ...]
    """Sizes; ``"batch"`` and ``"pos"`` stand for themselves until a prompt is known."""
    editable: bool
    lazy: bool
    """Computed only if something asks for it."""

    def sizes(self, batch: int, pos: int) -> tuple[int, ...]:
        """Return the concrete shape for a prompt of that size."""
        known = {"batch": batch, "pos": pos}
        return tuple(known[size] if isinstance(size, str) else size for size in self.shape)


class HookPoints(Sequence[HookPoint]):
    """Every hook point of a model in forward order; prints as a table.

    Parameters
    ----------
    points : tuple of HookPoint
        What there is.
    absent : mapping
        Points that this architecture does not have, each with the reason.
    n_layers : int
        Layers of the model.
    """

    def __init__(
        self, points: tuple[HookPoint, ...], absent: Mapping[Point, str], n_layers: int
    ) -> None:
        self._points = points
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
            # Asked for every edit of a sweep: mostly the first look says that it is there.
            reason = self._absent.get(point[layer])
            if reason is None:
                return None
        return reason

    def table(self, batch: int | None = None, pos: int | None = None) -> Table:
        """Return one row per site: name, string, axes, shape, what can be done, and meaning.

        Parameters
        ----------
        batch, pos : int or None
            Sizes of a prompt, to see concrete shapes.
        """
        table = Table(["at.", "string", "axes", "shape", "edit", "meaning"])
        known = {"batch": batch, "pos": pos}
        first = {entry.point.site: entry for entry in reversed(self._points)}
        missing: dict[str, list[Site]] = {}
        for site in ALL_SITES:
            if (reason := self.absence(site)) is not None:
                missing.setdefault(reason, []).append(site)
        for site in ALL_SITES:
            reason = self.absence(site) or ""
            if site in first:
                entry = first[site]
                sizes = [str(known.get(str(size)) or size) for size in entry.shape]
                meaning = meanings().get(site.name, "") + self._only_in(site)
                table.add(
                    _shown(site), self._string(site), " ".join(entry.axes), " × ".join(sizes),
                    "yes" if entry.editable else "no", meaning,
                )  # fmt: skip
            elif reason and len(missing[reason]) == 1:
                table.add(_shown(site), self._string(site), "", "", "", f"absent: {reason}")
            elif reason and missing[reason][0] is site:
                # One row for all that are absent for the same reason.
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


def _shown(site: Site) -> str:
    return f"{site.name}[l]" if isinstance(site, LayerSite) else site.name


def decoder_hook_points(cfg: DecoderConfig) -> HookPoints:
    """Return the hook points of a decoder."""
    reasons: dict[Point, str] = absent_global(cfg) | {
        site[number]: reason
        for number, layer in enumerate(cfg.layers)
        for site, reason in absent_in_layer(layer).items()
    }
    first = ALL_SITES.index(at.resid_pre)
    in_layer = [site for site in ALL_SITES if isinstance(site, LayerSite)]
    order: list[Point] = [site for site in ALL_SITES[:first] if isinstance(site, GlobalSite)]
    order += [site[number] for number in range(cfg.n_layers) for site in in_layer]
    order += [site for site in ALL_SITES[first:] if isinstance(site, GlobalSite)]
    entries = tuple(_entry(point, cfg) for point in order if point not in reasons)
    return HookPoints(entries, reasons, cfg.n_layers)


def _entry(point: Point, cfg: DecoderConfig) -> HookPoint:
    axes = point.site.axes
    attn = cfg.layers[point.layer or 0].mixer
    qk_norm = attn.qk_norm if isinstance(attn, Attention) else None
    if qk_norm is not None and not qk_norm.per_head and axes[-2:] in _HEAD_SCALES:
        # One denominator for all heads.
        axes = ("batch", "pos", "1", "1")
    shape = tuple(_size(axis, point, cfg) for axis in axes)
    editable, lazy = point.site not in DERIVED, point.site in LAZY
    return HookPoint(point=point, axes=axes, shape=shape, editable=editable, lazy=lazy)


_HEAD_SCALES = (("head", "1"), ("kv_head", "1"))


def _size(axis: str, point: Point, cfg: DecoderConfig) -> int | str:
    layer = cfg.layers[point.layer or 0]
    sizes: dict[str, int | str] = {
        "1": 1,
        "batch": "batch",
        "pos": "pos",
        "query_pos": "pos",
        "key_pos": "pos",
        "d_model": cfg.d_model,
        "d_vocab": cfg.d_vocab,
        "head": layer.mixer.n_heads,
        "kv_head": layer.mixer.n_key_value_heads if isinstance(layer.mixer, Attention) else 0,
        "d_head": layer.mixer.d_head,
        "d_key": layer.mixer.d_head,
        "d_value": layer.mixer.d_head,
        "d_mlp": layer.mlp.d_mlp,
        "expert": layer.mlp.n_experts if isinstance(layer.mlp, Experts) else 0,
    }
    return sizes[axis]
