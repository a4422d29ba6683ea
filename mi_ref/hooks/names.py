"""Hook names: strings to points, with aliases, and errors that suggest what was meant.

Strings never create points: an unknown name is an error, not a hook that never fires. Names of
other libraries are understood where they mean the same tensor and refused where they do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from mi_ref.errors import HookError
from mi_ref.hooks.sites import ALL_SITES, GlobalSite, LayerSite, Point, Site

_BY_STRING: dict[str, Site] = {site.string: site for site in ALL_SITES}
_BY_NAME: dict[str, Site] = {site.name: site for site in ALL_SITES}

_ALIASES = {
    "blocks.{layer}.hook_in": "blocks.{layer}.hook_resid_pre",
    "blocks.{layer}.hook_out": "blocks.{layer}.hook_resid_post",
    "embed.hook_out": "hook_embed",
    "hook_final_norm": "unembed.hook_in",
}

_FLAT = (
    "TransformerBridge's tensor of that name is flat [batch, pos, head * d_head];"
    " use '{ours}' and mind the axes [batch, pos, head, d_head]"
)
_FORK = (
    "TransformerLens' tensor of that name is a copy of the residual stream before the norm;"
    " use '{ours}'"
)
_REFUSED = {
    "blocks.{layer}.attn.hook_scores": (
        "candle-mi's tensor of that name is before soft-cap and mask;"
        " 'blocks.{layer}.attn.hook_attn_scores' is after both"
    ),
    **{
        f"blocks.{{layer}}.attn.{part}.hook_out": _FLAT.replace(
            "{ours}", f"blocks.{{layer}}.attn.hook_{part}"
        )
        for part in "qkv"
    },
    **{
        f"blocks.{{layer}}.hook_{part}": _FORK.replace(
            "{ours}", f"blocks.{{layer}}.hook_{ours}' or 'blocks.{{layer}}.{normed}"
        )
        for part, ours, normed in (
            ("attn_in", "resid_pre", "attn.hook_in"),
            ("q_input", "resid_pre", "attn.hook_in"),
            ("k_input", "resid_pre", "attn.hook_in"),
            ("v_input", "resid_pre", "attn.hook_in"),
            ("mlp_in", "resid_mid", "mlp.hook_in"),
        )
    },
}


def parse_point(text: str, added: Sequence[Site] = ()) -> Point:
    """Return the point that `text` names.

    Parameters
    ----------
    text : str
        ``"blocks.5.hook_resid_post"``, ``"hook_embed"``, an alias, or the bare name of a site
        that belongs to no layer (``"embed"``).
    added : sequence of Site
        Further sites that are known, as `HookPoints.with_sites` adds them.

    Raises
    ------
    HookError
        If there is no such point, with the nearest names; or if the name means another tensor
        elsewhere, with the difference.
    """
    template, layer = _split(text)
    if template in _REFUSED:
        raise HookError(f"{text!r} is refused: {_REFUSED[template].format(layer=layer)}.")
    by_string = _BY_STRING | {site.string: site for site in added} if added else _BY_STRING
    by_name = _BY_NAME | {site.name: site for site in added} if added else _BY_NAME
    site = by_string.get(_ALIASES.get(template, template))
    if site is None and layer is None:
        site = by_name.get(text)
    if isinstance(site, LayerSite) and layer is not None:
        return site[layer]
    if isinstance(site, GlobalSite) and layer is None:
        return site
    raise HookError(f"no hook point is named {text!r}.{_hint(text, layer, by_name)}")


def named_site(name: str, added: Sequence[Site] = ()) -> Site:
    """Return the site with that short name (``"resid_post"``) or template; `added` ones too.

    Raises
    ------
    HookError
        If there is none, with the nearest names.
    """
    for own in added:
        if name in (own.name, own.string):
            return own
    site = _BY_NAME.get(name) or _BY_STRING.get(name)
    if site is None:
        known = [*_BY_NAME, *(own.name for own in added)]
        raise HookError(f"no hook site is named {name!r}.{_did_you_mean(name, known)}")
    return site


def _split(text: str) -> tuple[str, int | None]:
    """Split off the layer number: ``"blocks.5.x"`` gives ``("blocks.{layer}.x", 5)``."""
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", text)
    if found is None:
        return text, None
    return f"blocks.{{layer}}.{found[2]}", int(found[1])


def _hint(text: str, layer: int | None, by_name: Mapping[str, Site]) -> str:
    if layer is None and text in by_name:
        return (
            f" {text!r} is a site of every layer: write {by_name[text].string.format(layer=0)!r}."
        )
    known = [site.string.format(layer=layer or 0) for site in by_name.values()]
    return _did_you_mean(text, known)


def _did_you_mean(text: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(text, known, n=2, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
