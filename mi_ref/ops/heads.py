"""Split activations into heads, and merge them again."""

from __future__ import annotations

from mi_ref._typing import Array, Float, Namespace


def split_heads(
    x: Float[Array, "batch pos width"], n_heads: int, xp: Namespace
) -> Float[Array, "batch pos head d_head"]:
    """Split the last axis: [batch, pos, head * d_head] -> [batch, pos, head, d_head]."""
    batch, n_pos, width = x.shape
    return xp.reshape(x, (batch, n_pos, n_heads, width // n_heads))


def merge_heads(
    x: Float[Array, "batch pos head d_head"], xp: Namespace
) -> Float[Array, "batch pos width"]:
    """Merge the last axes: [batch, pos, head, d_head] -> [batch, pos, head * d_head]."""
    batch, n_pos, n_heads, d_head = x.shape
    return xp.reshape(x, (batch, n_pos, n_heads * d_head))
