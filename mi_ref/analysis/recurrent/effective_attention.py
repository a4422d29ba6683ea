"""A recurrence as attention: how much of each position's value every position reads.

Once its gates are fixed, the recurrence of RWKV is linear in the values, so it is a matrix. The
exact one, ``at.rwkv_effective_attn``, is signed and its rows need not sum to one; times the values
it gives ``at.rwkv_wkv``. The sign and the reconstruction are lost in `relu_l1`, candle-mi's view.

What neither shows: the gate and the norm that follow, RWKV-7's bonus after the norm, and that
token shift mixes each position's inputs with those of the token before.
"""

from __future__ import annotations

from typing import Literal

from mi_ref._typing import Array, Float, Namespace
from mi_ref.analysis.arguments.prompts import place
from mi_ref.config.decoder import TimeMix6
from mi_ref.errors import ArgumentError, HookError
from mi_ref.forward.state_taps import Terms
from mi_ref.hooks.sites import at
from mi_ref.run import Run


def effective_attention(
    run: Run, layer: int, *, normalize: Literal["relu_l1"] | None = None
) -> Float[Array, "batch head query_pos key_pos"]:
    """Return a layer's effective attention, which the run must have captured.

    Parameters
    ----------
    run : Run
        With ``at.rwkv_effective_attn[layer]``.
    layer : int
        Which; negative counts from the end.
    normalize : {"relu_l1"} or None
        None: exact and signed. ``"relu_l1"``: as candle-mi shows it; see `relu_l1`.
    """
    if normalize not in (None, "relu_l1"):
        raise ArgumentError(f"normalize={normalize!r}: expected 'relu_l1' or None.")
    attention = run[at.rwkv_effective_attn[layer]]
    return attention if normalize is None else relu_l1(attention, xp=run.backend.xp)


def relu_l1(
    attention: Float[Array, "batch head query_pos key_pos"], *, xp: Namespace
) -> Float[Array, "batch head query_pos key_pos"]:
    """Return the positive part with rows that sum to one, or to zero where nothing is positive."""
    positive = xp.where(attention > 0, attention, xp.zeros_like(attention))
    # candle-mi's epsilon: a row without positive weights stays zero.
    return positive / (xp.sum(positive, axis=-1, keepdims=True) + 1e-10)


def mix_by_recurrence(
    run: Run, layer: int, values: Float[Array, "batch pos head width"]
) -> Float[Array, "batch pos head width"]:
    """Return effective attention times other values, without the matrix.

    Takes time and memory in proportion to the number of positions, not to its square.

    Parameters
    ----------
    run : Run
        With ``rwkv_r``, ``rwkv_k`` and ``rwkv_decay`` of the layer captured; of RWKV-7 also
        ``rwkv_a`` and ``rwkv_kk``.
    layer : int
        Which; negative counts from the end.
    values : Array
        What takes the place of ``rwkv_v``; any width.
    """
    backend, cfg = run.backend, run.cfg
    if not cfg.recurrent:
        raise HookError(f"{run.origin.name} attends: its matrix is at.pattern.")
    layer = place(layer, cfg.n_layers, "layer")
    xp, attn = backend.xp, cfg.layers[layer].mixer
    r, k, decay = (run[site[layer]] for site in (at.rwkv_r, at.rwkv_k, at.rwkv_decay))
    removal = None
    if not isinstance(attn, TimeMix6):
        removal = run[at.rwkv_kk[layer]], run[at.rwkv_kk[layer]] * run[at.rwkv_a[layer]]
    mask = None if run.padding is None else run.padding.mask(backend)
    terms = Terms(r, k, values, decay, removal).without_pads(mask, xp)
    batch, _, n_heads, d_key = k.shape
    nothing = xp.zeros((batch, n_heads, d_key, values.shape[-1]), dtype=k.dtype, device=k.device)
    mixed, _ = backend.ops.recurrence(terms.r, terms.k, values, terms.decay, terms.removal, nothing)
    if removal is None and run.bonuses is not None:
        mixed = mixed + xp.sum(r * k * run.bonuses[layer], axis=-1, keepdims=True) * values
    return mixed
