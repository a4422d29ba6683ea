"""Norms, with a site for the denominator and one for the quotient."""

from __future__ import annotations

from mi_ref._typing import Array
from mi_ref.config.decoder import LayerNorm, NormKind
from mi_ref.forward.plan import Tap
from mi_ref.hooks.sites import Site
from mi_ref.ops.ops import Ops
from mi_ref.params.params import Norm


def apply_norm(
    w: Norm, kind: NormKind, x: Array, tap: Tap, sites: tuple[Site, Site], ops: Ops
) -> Array:
    """Return `x` normed; `sites` are those of the denominator and of the quotient."""
    if isinstance(kind, LayerNorm):
        x = ops.center(x)
    if not tap.wants(*sites):
        return ops.rms_norm(x, w.weight, w.bias, kind.eps)
    scale_site, normalized_site = sites
    scale = tap(scale_site, ops.rms_scale(x, kind.eps))
    normed = tap(normalized_site, x / scale) * w.weight
    return normed if w.bias is None else normed + w.bias
