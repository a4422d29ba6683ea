"""Knocking out, steering and removing what tokens write into a recurrent model's state.

Each function returns edits, to be given to ``model.run(..., edits=…)`` as they are or among
others: ``edits=[*state_knockout([3]), *state_steering([5], scale=2.0)]``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from mi_ref.config.decoder import TimeMix7
from mi_ref.edits.intervention import Intervention
from mi_ref.edits.values import Bypass, Fill, Scale
from mi_ref.errors import ArgumentError, HookError
from mi_ref.hooks.points import LayerPoint, LayerSite, LayerSpan
from mi_ref.hooks.sites import at
from mi_ref.weightless import Weightless

Layers: TypeAlias = int | slice | Iterable[int] | None
"""One layer, a slice, several, or None for all."""
StateEdits: TypeAlias = tuple[tuple[LayerPoint | LayerSpan, Intervention], ...]


def state_knockout(
    positions: Sequence[int], *, layers: Layers = None, heads: Sequence[int] | None = None
) -> StateEdits:
    """Stop some positions from writing into the state; candle-mi's ``StateKnockoutSpec``.

    They do not become invisible. Later tokens still meet them through token shift, in time mixing
    and in channel mixing; the state still decays as they pass; in RWKV-7 they still remove what it
    holds under their removal key. At the position itself RWKV-6 still reads its own bonus, while
    RWKV-7, which reads the state after the write, loses its own key and value but for the bonus
    added after the norm. `token_removal` has a switch for each of these.

    Together with `state_steering` at the same position the knockout wins, whichever comes first;
    other positions are steered as asked.

    Parameters
    ----------
    positions : sequence of int
        Which; negative ones count from the end.
    layers : int, slice, iterable of int, or None
        In which layers; None for all.
    heads : sequence of int or None
        In which heads; None for all.
    """
    return state_steering(positions, scale=0.0, layers=layers, heads=heads)


def state_steering(
    positions: Sequence[int],
    *,
    scale: float,
    layers: Layers = None,
    heads: Sequence[int] | None = None,
) -> StateEdits:
    """Multiply what some positions write into the state; candle-mi's ``StateSteeringSpec``.

    What they remove, how the state decays and what token shift takes from them stays as it is; see
    `state_knockout`, which is a scale of 0.

    Parameters
    ----------
    positions, layers, heads
        As for `state_knockout`.
    scale : float
        Factor of the write; 1 changes nothing.
    """
    edit = Scale(_some(positions), heads=heads, factor=scale)
    return tuple((target, edit) for target in _targets(at.rwkv_write, layers))


def token_removal(
    model: Weightless,
    positions: Sequence[int],
    *,
    layers: Layers = None,
    write: bool = True,
    erase: bool = True,
    decay: bool = True,
    self_read: bool = True,
    shift: bool = True,
) -> StateEdits:
    """Make tokens invisible to later ones.

    With every switch on and in all layers, every later position gives the result it would give if
    the tokens were not in the text. The removed positions themselves are still computed, from the
    tokens before them, and mean nothing; so after a removed *last* token, token shift still reads
    it from ``run.state``, whose matrices are those without it.

    Parameters
    ----------
    model : Model
        A recurrent model.
    positions : sequence of int
        Which tokens; negative ones count from the end.
    layers : int, slice, iterable of int, or None
        In which layers; None for all.
    write : bool
        Nothing of them is written into the state (so RWKV-7 does not read it at the position
        itself either).
    erase : bool
        RWKV-7: they remove nothing from the state. RWKV-6 never removes.
    decay : bool
        The state does not decay as they pass.
    self_read : bool
        They do not read their own bonus. This concerns the removed positions only.
    shift : bool
        The token after them is mixed with the one before them, in time and channel mixing.
    """
    if not model.cfg.recurrent:
        raise HookError(
            f"token_removal: {model.origin.name} attends and has no recurrent state. Knock out"
            " attention at at.attn_scores."
        )
    where = _some(positions)
    sites: list[tuple[LayerSite, Intervention]] = []
    if write:
        sites.append((at.rwkv_write, Scale(where)))
    if erase and any(isinstance(layer.mixer, TimeMix7) for layer in model.cfg.layers):
        sites.append((at.rwkv_kk, Scale(where)))
    if decay:
        sites.append((at.rwkv_decay, Fill(where, value=1.0)))
    if self_read:
        sites.append((at.rwkv_bonus, Scale(where)))
    if shift:
        sites += [(at.rwkv_shift, Bypass(where)), (at.mlp_shift, Bypass(where))]
    if not sites:
        alone = "erase= alone, where nothing is ever erased," if erase else "every switch off"
        raise ArgumentError(f"token_removal with {alone} removes nothing: leave another on.")
    return tuple((target, edit) for site, edit in sites for target in _targets(site, layers))


def _some(positions: Sequence[int]) -> tuple[int, ...]:
    chosen = tuple(positions)
    if not chosen:
        raise ArgumentError(f"positions={positions!r}: expected at least one position.")
    return chosen


def _targets(site: LayerSite, layers: Layers) -> list[LayerPoint | LayerSpan]:
    if layers is None:
        return [site[:]]
    if isinstance(layers, int | slice):
        return [site[layers]]
    chosen = [site[layer] for layer in layers]
    if not chosen:
        raise ArgumentError(
            f"layers={layers!r}: expected at least one layer; leave it out for all."
        )
    return list(chosen)
