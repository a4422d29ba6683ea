"""Path patching: which component acts on which other directly, not by way of all that is between.

Each sender's output is taken from the source prompt while the base prompt runs with what follows
held still, so that a receiver gets the change along the direct path only. What it then reads is put
into a run of its own, in which all else goes on freely, and the prediction is measured.

Source: Wang et al., arXiv:2211.00593, appendix B; Goldowsky-Dill et al., arXiv:2304.05969.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from mi_ref.analysis.arguments.prompts import places, read_pair
from mi_ref.analysis.measure.metrics import Metric
from mi_ref.analysis.patching.grid import (
    Direction,
    PatchingGrid,
    patch_grid,
    read_patching,
)
from mi_ref.analysis.patching.routes import (
    Cut,
    Freeze,
    Input,
    Receiver as Receiver,
    Routes,
    Sender,
    Sending,
    read_receivers,
)
from mi_ref.analysis.sweeps.cells import rows_of
from mi_ref.analysis.sweeps.sweep import SweepCell, SweepOptions
from mi_ref.edits.intervention import Places
from mi_ref.errors import ArgumentError, HookError, ShapeError
from mi_ref.model import Model
from mi_ref.text.prompt import Prompt

_NAMES = ("clean", "corrupted")


def path_patching(
    model: Model,
    clean: Prompt,
    corrupted: Prompt,
    *,
    senders: Sending = "head",
    receivers: Receiver | Sequence[Receiver] | None = None,
    freeze: Freeze = "attention",
    direction: Direction = "denoising",
    metric: Metric | None = None,
    layers: Places = None,
    heads: Places = None,
    positions: Places = None,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> PatchingGrid:
    """Patch the direct paths from one sender at a time to the receivers, or to the logits.

    What is held still is what each layer's attention (or MLP) adds to the residual stream, exactly
    as the base prompt has it. Norms are computed anew: those that components read through, the
    final one, and where a norm follows attention (Gemma 2) that of the sender's own layer, of which
    the sender is a part. A receiver that also reads another receiver's output gets only what the
    sender sends it directly. In a recurrent model time mixing plays attention's part.

    Parameters
    ----------
    model : Model
        What to look into.
    clean, corrupted : str, sequence of int, or Array
        Two prompts of equal length.
    senders : {"head", "attn", "mlp"}
        Each head, or the output of each attention or MLP.
    receivers : Receiver, sequence of Receiver, or None
        Inputs that paths end at, patched together; None for the final residual stream.
    freeze : {"attention", "all"}
        "attention", as Wang et al. do: MLPs between sender and receiver pass on what they read, so
        that a direct path may lead through them. "all" holds them too: the residual stream alone.
    direction : {"denoising", "noising"}
        Clean outputs into the corrupted run, or the reverse, which Wang et al. do.
    metric : Metric or None
        As for `activation_patching`.
    layers, heads, positions : Places
        Which senders, and where their outputs are taken from the other prompt; None for all.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweep`, of the runs that are measured. With receivers, those
        before them are computed anew each time: `resume` needs the same ``rows``.

    Returns
    -------
    PatchingGrid
        Layers by heads, or by the one output. A sender that comes after all receivers is not run:
        its value is the base prompt's and its recovery zero.

    Raises
    ------
    HookError
        If a receiver is none of this model's, or no sender can reach one.
    ShapeError
        If an option, layer, head or position lies outside.
    """
    _check(senders, freeze, heads)
    ends = None if receivers is None else read_receivers(model, receivers)
    pair = read_pair(model, clean, corrupted, names=_NAMES, prepend_bos=prepend_bos)
    patching = read_patching(model, pair, direction, metric)
    depth = places(layers, model.cfg.n_layers, "layers")
    where = tuple(sorted(places(positions, len(pair.first), "positions")))
    which = places(heads, model.cfg.n_heads, "heads") if senders == "head" else (None,)
    routes = Routes(patching, senders, freeze, depth, where)
    everyone = [Sender(layer, head) for layer in depth for head in which]
    if ends is None:
        _check_last(model, freeze, where, len(pair.first))
        edits = {sender: routes.cut([sender]) for sender in everyone}
    else:
        edits = _arrivals(routes, everyone, ends, rows_of(options.get("rows"), len(pair.first)))

    def cell(row: int, column: int) -> SweepCell | None:
        sender = Sender(depth[row], which[column])
        name = f"{routes.site!r} {sender.layer}{'' if sender.head is None else f'.{sender.head}'}"
        return SweepCell(tuple(edits[sender]), label=name) if sender in edits else None

    return patch_grid(
        patching,
        cell,
        site=_route(routes, ends, freeze, None if positions is None else where),
        row_names=[str(layer) for layer in depth],
        column_names=[senders if head is None else str(head) for head in which],
        axes=("layer", "head" if senders == "head" else "output"),
        **options,
    )


def _check(senders: Sending, freeze: Freeze, heads: Places) -> None:
    if senders not in ("head", "attn", "mlp"):
        raise ArgumentError(f"senders={senders!r}: expected 'head', 'attn' or 'mlp'.")
    if freeze not in ("attention", "all"):
        raise ArgumentError(f"freeze={freeze!r}: expected 'attention' or 'all'.")
    if heads is not None and senders != "head":
        raise ShapeError(f"heads={heads!r}: only senders='head' has heads, not {senders!r}.")


def _check_last(model: Model, freeze: Freeze, where: tuple[int, ...], n_pos: int) -> None:
    """Refuse senders that cannot reach the last position, which is what is measured."""
    # Channel mixing of a recurrent model reads the token before, so that it moves things too.
    if n_pos - 1 in where or (model.cfg.recurrent and freeze == "attention"):
        return
    raise HookError(
        f"positions {list(where)} cannot reach the logits of position {n_pos - 1} directly: only"
        " attention moves anything from one position to another, and it is held still. Send from"
        " that position, or name receivers."
    )


def _arrivals(
    routes: Routes, everyone: Sequence[Sender], ends: Sequence[Input], rows: int
) -> dict[Sender, Cut]:
    """Return the edits of every sender that reaches a receiver."""
    able = [s for s in everyone if any(routes.reaches(s, end.point) for end in ends)]
    if not able:
        layers = sorted({sender.layer for sender in everyone})
        raise HookError(
            f"no sender at {routes.site!r} in layers {layers} comes before a receiver,"
            f" {', '.join(map(str, ends))}: choose earlier layers or later receivers."
        )
    return dict(zip(able, routes.arrivals(able, ends, rows), strict=True))


def _route(
    routes: Routes, ends: Sequence[Input] | None, freeze: Freeze, where: tuple[int, ...] | None
) -> str:
    """Return the route for headings."""
    start = repr(routes.site)
    if where is not None:
        start += f" at position{'s' * (len(where) > 1)} {', '.join(map(str, where))}"
    end = "the logits" if ends is None else " and ".join(map(str, ends))
    held = "attention" if freeze == "attention" else "attention and MLPs"
    return f"{start} to {end}, {held} frozen"
