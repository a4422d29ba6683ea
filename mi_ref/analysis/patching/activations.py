"""Activation patching: which activation of one prompt, put into another's run, carries the answer.

Each patch replaces the chosen positions (or heads, or neurons) only: what flows elsewhere is the
patched prompt's own. Denoising puts the clean prompt's activations into the corrupted one's run
and asks what suffices to bring the answer back; noising asks the reverse, what is necessary.

Source: Vig et al., arXiv:2004.12265; Meng et al., arXiv:2202.05262; names of the two directions
and the pitfalls of each in Heimersheim and Nanda, arXiv:2404.15255.
"""

from __future__ import annotations

from typing import Unpack

from mi_ref import do
from mi_ref._typing import Array
from mi_ref.analysis.arguments.numbers import layer_site
from mi_ref.analysis.arguments.prompts import place, places, position_names, read_pair
from mi_ref.analysis.measure.metrics import Metric
from mi_ref.analysis.patching.grid import (
    Direction,
    Patching,
    PatchingGrid,
    patch_grid,
    read_patching,
)
from mi_ref.analysis.sweeps.sweep import SweepCell, SweepOptions
from mi_ref.edits.intervention import Places
from mi_ref.errors import HookError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import LayerSite, at
from mi_ref.model import Model
from mi_ref.text.prompt import Prompt

_NAMES = ("clean", "corrupted")


def activation_patching(
    model: Model,
    clean: Prompt,
    corrupted: Prompt,
    *,
    site: LayerSite = at.resid_pre,
    direction: Direction = "denoising",
    metric: Metric | None = None,
    layers: Places = None,
    positions: Places = None,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> PatchingGrid:
    """Patch one layer at one position at a time.

    Parameters
    ----------
    model : Model
        What to look into.
    clean, corrupted : str, sequence of int, or Array
        Two prompts of equal length.
    site : LayerSite
        ``at.resid_pre``, ``at.attn_out``, ``at.mlp_out``, or any other with positions.
    direction : {"denoising", "noising"}
        Clean activations into the corrupted run, or the reverse.
    metric : Metric or None
        What to measure of the last position beside the recovery; None for the logit difference
        between the likeliest tokens of the clean and of the corrupted prompt.
    layers, positions : Places
        Which; None for all.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweeps.sweep.sweep`: ``rows``, ``executor``, ``resume``.

    Returns
    -------
    PatchingGrid
        Layers by positions.
    """
    if "pos" not in layer_site(site).axes:
        raise HookError(f"{site!r} has the axes {' '.join(site.axes)}: one with pos is needed.")
    patching = _read(model, clean, corrupted, direction, metric, prepend_bos)
    depth = places(layers, model.cfg.n_layers, "layers")
    width = places(positions, len(patching.base_tokens), "positions")
    held = _source(patching, site, depth, width)

    def cell(row: int, column: int) -> SweepCell:
        layer, pos = depth[row], width[column]
        value = held[layer][:, column : column + 1, ...]
        edit = do.replace(value, positions=pos)
        return SweepCell(((site[layer], edit),), label=f"{site[layer]!r} position {pos}")

    names = position_names(model.origin, patching.base_tokens)
    return patch_grid(
        patching,
        cell,
        site=repr(site),
        row_names=[str(layer) for layer in depth],
        column_names=[names[pos] for pos in width],
        axes=("layer", "position"),
        **options,
    )


def head_patching(
    model: Model,
    clean: Prompt,
    corrupted: Prompt,
    *,
    site: LayerSite | None = None,
    direction: Direction = "denoising",
    metric: Metric | None = None,
    layers: Places = None,
    heads: Places = None,
    positions: Places = None,
    per_position: bool = False,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> PatchingGrid:
    """Patch one head at a time.

    Parameters
    ----------
    model, clean, corrupted, direction, metric, layers, prepend_bos, **options
        As for `activation_patching`.
    site : LayerSite or None
        With an axis of heads; None for ``at.z``, or of recurrent models ``at.rwkv_wkv``. With
        ``at.pattern`` a head looks where it looks in the other prompt, at values of its own.
    heads : Places
        Which; None for all.
    positions : Places
        Where each patch acts (of patterns, which queries); None for everywhere.
    per_position : bool
        Whether each position is a patch of its own.

    Returns
    -------
    PatchingGrid
        Layers by heads; with `per_position`, heads by positions.
    """
    if site is None:
        site = at.rwkv_wkv if model.cfg.recurrent else at.z
    head_axis, pos_axis = _axes_of_heads(site)
    patching = _read(model, clean, corrupted, direction, metric, prepend_bos)
    depth = places(layers, model.cfg.n_layers, "layers")
    where = tuple(sorted(places(positions, len(patching.base_tokens), "positions")))
    held = _source(patching, site, depth, where)
    which = places(heads, held[depth[0]].shape[head_axis], "heads")

    def cell(layer: int, head: int, column: int | None) -> SweepCell:
        value = _one(held[layer], head_axis, head)
        chosen: tuple[int, ...] = where
        if column is not None:
            value, chosen = _one(value, pos_axis, column), (where[column],)
        edit = do.replace(value, positions=chosen, heads=head)
        return SweepCell(((site[layer], edit),), label=f"{site[layer]!r} head {head}")

    if not per_position:
        return patch_grid(
            patching,
            lambda row, column: cell(depth[row], which[column], None),
            site=repr(site),
            row_names=[str(layer) for layer in depth],
            column_names=[str(head) for head in which],
            axes=("layer", "head"),
            **options,
        )
    pairs = [(layer, head) for layer in depth for head in which]
    names = position_names(model.origin, patching.base_tokens)
    return patch_grid(
        patching,
        lambda row, column: cell(*pairs[row], column),
        site=repr(site),
        row_names=[f"{layer}.{head}" for layer, head in pairs],
        column_names=[names[pos] for pos in where],
        axes=("head", "position"),
        **options,
    )


def neuron_patching(
    model: Model,
    clean: Prompt,
    corrupted: Prompt,
    *,
    layer: int,
    neurons: Places = None,
    direction: Direction = "denoising",
    metric: Metric | None = None,
    positions: Places = None,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> PatchingGrid:
    """Patch one neuron of one layer at a time, at ``at.post``.

    Parameters
    ----------
    model, clean, corrupted, direction, metric, prepend_bos, **options
        As for `activation_patching`.
    layer : int
        Which; negative counts from the end.
    neurons : Places
        Which; None for all, which is as many runs.
    positions : Places
        Each is a row of the grid; None for one row that patches all positions together.

    Returns
    -------
    PatchingGrid
        Positions by neurons.
    """
    patching = _read(model, clean, corrupted, direction, metric, prepend_bos)
    number = place(layer, model.cfg.n_layers, "layer")
    n_pos = len(patching.base_tokens)
    where = places(positions, n_pos, "positions")
    value = _source(patching, at.post, (number,), where)[number]
    which = places(neurons, value.shape[2], "neurons")

    def cell(row: int, column: int) -> SweepCell:
        neuron = which[column]
        own = value[:, :, neuron : neuron + 1]
        own = own if positions is None else own[:, row : row + 1, :]
        chosen = None if positions is None else where[row]
        edit = do.replace(own, positions=chosen, neurons=neuron)
        return SweepCell(((at.post[number], edit),), label=f"neuron {number}.{neuron}")

    names = position_names(model.origin, patching.base_tokens)
    return patch_grid(
        patching,
        cell,
        site=f"at.post[{number}]",
        row_names=["all"] if positions is None else [names[pos] for pos in where],
        column_names=[str(neuron) for neuron in which],
        axes=("position", "neuron"),
        **options,
    )


def _axes_of_heads(site: LayerSite) -> tuple[int, int]:
    """Return which axes of a site are the heads and the positions that a patch acts at."""
    axes = layer_site(site).axes
    found = {axis.removeprefix("kv_").removeprefix("query_"): n for n, axis in enumerate(axes)}
    if not {"head", "pos"} <= set(found):
        raise HookError(f"{site!r} has the axes {' '.join(site.axes)}: pos and head are needed.")
    return found["head"], found["pos"]


def _one(x: Array, axis: int, n: int) -> Array:
    """Return entry `n` along an axis, which stays."""
    return x[(slice(None),) * axis + (slice(n, n + 1),)]


def _read(
    model: Model,
    clean: Prompt,
    corrupted: Prompt,
    direction: Direction,
    metric: Metric | None,
    prepend_bos: bool | None,
) -> Patching:
    pair = read_pair(model, clean, corrupted, names=_NAMES, prepend_bos=prepend_bos)
    return read_patching(model, pair, direction, metric)


def _source(
    patching: Patching, site: LayerSite, layers: tuple[int, ...], positions: tuple[int, ...]
) -> dict[int, Array]:
    """Return the activations to put in, by layer: of the other prompt, at these positions."""
    wanted = [capture(site[layer], pos=positions) for layer in layers]
    run = patching.model.run(list(patching.source_tokens), capture=wanted, logits="none")
    return {layer: run[site[layer]] for layer in layers}
