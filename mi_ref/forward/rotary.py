"""Cosines and sines of rotary embedding, computed once for all layers that share a variant."""

from __future__ import annotations

import math

from mi_ref._typing import Array, DType, Float, Namespace
from mi_ref.backend import Backend
from mi_ref.config.rope import (
    DefaultRope,
    DynamicRope,
    LinearRope,
    Llama3Rope,
    LongRope,
    Rotary,
    YarnRope,
)
from mi_ref.text.padding import Padding


def rotary_tables(
    rotary: Rotary,
    n_pos: int,
    padding: Padding | None,
    *,
    first: int = 0,
    dtype: DType,
    backend: Backend,
) -> tuple[Float[Array, "*rows pos half"], Float[Array, "*rows pos half"]]:
    """Return cosine and sine of each position's angles, one angle for each pair of coordinates.

    Parameters
    ----------
    rotary : Rotary
        The variant.
    n_pos : int
        Length of the whole sequence, past included. Some variants' frequencies depend on it.
    padding : Padding or None
        The positions of each row's tokens in the whole sequence, if there are pads. Each row then
        has the frequencies for its own length, as if it ran alone.
    first : int
        The first position whose angles are returned: how many positions are past.
    dtype : dtype
        Dtype of the result; the computation is in float64.
    backend : Backend
        The backend.

    Returns
    -------
    tuple of Array
        Cosine and sine, each ``[pos, dims / 2]`` or, with padding, ``[batch, pos, dims / 2]``,
        times the variant's attention factor. `pos` runs from `first` to the end.
    """
    xp, device = backend.xp, backend.device
    powers = xp.arange(0, rotary.dims, 2, dtype=xp.float64, device=device) / rotary.dims
    if padding is None:
        positions = xp.arange(first, n_pos, dtype=xp.float64, device=device)
        inv_freq, factor = _frequencies(rotary, powers, n_pos, backend)
    else:
        positions = xp.astype(padding.positions(backend)[:, first:], xp.float64)
        by_length = {n: _frequencies(rotary, powers, n, backend) for n in set(padding.lengths)}
        inv_freq = xp.stack([by_length[n][0] for n in padding.lengths])
        factor = by_length[padding.lengths[0]][1]
    # Computed as [half, pos] and transposed: this is how NumPy's backend lays out activations.
    angles = inv_freq[..., :, None] * positions[..., None, :]
    cos, sin = xp.cos(angles) * factor, xp.sin(angles) * factor
    return xp.astype(cos, dtype).mT, xp.astype(sin, dtype).mT


def _frequencies(
    rotary: Rotary, powers: Float[Array, " half"], n_pos: int, backend: Backend
) -> tuple[Float[Array, " half"], float]:
    """Return ``inv_freq`` and the factor on cosine and sine."""
    rope, dims, xp = rotary.rope, rotary.dims, backend.xp
    match rope:
        case DefaultRope():
            return _inverse_powers(rope.theta, powers, xp), 1.0
        case LinearRope():
            return _inverse_powers(rope.theta, powers, xp) / rope.factor, 1.0
        case DynamicRope():
            stretch = rope.factor * max(n_pos, rope.original_n_ctx) / rope.original_n_ctx
            base = rope.theta * (stretch - (rope.factor - 1)) ** (dims / (dims - 2))
            return _inverse_powers(base, powers, xp), 1.0
        case Llama3Rope():
            return _llama3(rope, _inverse_powers(rope.theta, powers, xp), xp), 1.0
        case YarnRope():
            return _yarn(rope, powers, dims, xp), rope.attention_factor
        case LongRope():
            listed = rope.long_factors if n_pos > rope.original_n_ctx else rope.short_factors
            factors = xp.asarray(listed, dtype=xp.float64, device=backend.device)
            return _inverse_powers(rope.theta, powers, xp) / factors, rope.attention_factor


def _inverse_powers(base: float, powers: Float[Array, " half"], xp: Namespace) -> Array:
    return xp.exp(powers * -math.log(base))


def _llama3(rope: Llama3Rope, inv_freq: Float[Array, " half"], xp: Namespace) -> Array:
    turns = inv_freq * (rope.original_n_ctx / (2 * math.pi))
    kept = (turns - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    smooth = (1 - kept) * inv_freq / rope.factor + kept * inv_freq
    slow = xp.where(turns < rope.low_freq_factor, inv_freq / rope.factor, smooth)
    return xp.where(turns > rope.high_freq_factor, inv_freq, slow)


def _yarn(rope: YarnRope, powers: Float[Array, " half"], dims: int, xp: Namespace) -> Array:
    def dimension(turns: float) -> float:
        """Return the coordinate pair that turns `turns` times within the original context."""
        ratio = rope.original_n_ctx / (turns * 2 * math.pi)
        return dims * math.log(ratio) / (2 * math.log(rope.theta))

    low, high = dimension(rope.beta_fast), dimension(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, dims - 1)
    width = high - low if high != low else 0.001
    ramp = xp.clip((powers * (dims / 2) - low) / width, 0.0, 1.0)
    inv_freq = _inverse_powers(rope.theta, powers, xp)
    return inv_freq / rope.factor * ramp + inv_freq * (1 - ramp)
