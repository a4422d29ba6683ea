"""The hook points of a decoder: every site that its structure has, in forward order."""

from __future__ import annotations

from mi_ref.config.decoder import Attention, DecoderConfig, Experts
from mi_ref.hooks.absence import absent_global, absent_in_layer
from mi_ref.hooks.catalog import HookPoint, HookPoints
from mi_ref.hooks.sites import ALL_SITES, GlobalSite, LayerSite, Point, at


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
    return HookPoint(point=point, axes=axes, shape=shape)


_HEAD_SCALES = (("head", "1"), ("kv_head", "1"))


def _size(axis: str, point: Point, cfg: DecoderConfig) -> int | str:
    layer = cfg.layers[point.layer or 0]
    sizes: dict[str, int | str] = {
        "1": 1,
        "batch": "batch",
        "pos": "pos",
        "query_pos": "pos",
        "key_pos": "key_pos",
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
