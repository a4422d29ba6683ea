"""The passes of :mod:`mi_ref.analysis.recurrent_feedback`: some layers, run over and over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from mi_ref._typing import Array
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import place
from mi_ref.edits.intervention import as_array
from mi_ref.errors import ArgumentError, HookError, ShapeError
from mi_ref.model import Model
from mi_ref.run import Run

Mode: TypeAlias = Literal["recurrent", "restart"]


@dataclass(frozen=True, slots=True)
class Feedback:
    """A vector added to the stream that enters the loop, before every pass but the first."""

    position: int
    """A position of the prompt; negative numbers count from its end."""
    vector: Any = field(compare=False)
    """``[d_model]``: an array or numbers."""
    strength: float = 1.0
    """What it is multiplied with."""


Placed: TypeAlias = tuple[int, Array]
"""Position, counted from the front, and what is added there."""


def run_loop(
    model: Model,
    tokens: Array,
    loop: tuple[int, int],
    depth: int,
    vectors: Sequence[Placed],
    mode: Mode,
) -> list[Run]:
    """Return the runs that stopped after the loop, one for each pass.

    Parameters
    ----------
    model : Model
        What runs.
    tokens : Array
        The prompt, ``[1, pos]``.
    loop : tuple of int
        As `loop_bounds` gives it.
    depth : int
        Passes.
    vectors : sequence of Placed
        What to add before every pass but the first.
    mode : {"recurrent", "restart"}
        Whether a further pass starts from the last one's output, or, if anything is added, from
        what entered the first.
    """
    start, stop = loop
    entering = model.run(tokens, stop_at_layer=start)
    runs = [model.run(entering, start_at_layer=start, stop_at_layer=stop)]
    for _ in range(depth - 1):
        restart = mode == "restart" and vectors
        resid = entering.resid if restart else runs[-1].resid
        for position, vector in vectors:
            resid = _added(resid, position, vector, model)
        again = replace(entering, resid=resid)
        runs.append(model.run(again, start_at_layer=start, stop_at_layer=stop))
    return runs


def _added(resid: Array, position: int, vector: Array, model: Model) -> Array:
    """Return the stream with a vector added at one position."""
    xp = model.backend.xp
    here = xp.arange(resid.shape[1], dtype=xp.int64, device=resid.device) == position
    return xp.where(here[None, :, None], resid + vector, resid)


def placed(model: Model, feedback: Sequence[Feedback], n_pos: int) -> list[Placed]:
    """Return feedback with positions counted from the front and strengths multiplied in.

    Raises
    ------
    ShapeError
        If a position lies outside, or a vector has another width.
    """
    xp, compute = model.backend.xp, model.compute
    like = xp.empty((model.cfg.d_model,), dtype=compute.dtype, device=compute.device)
    placed = []
    for each in feedback:
        vector = as_array(each.vector, like, model.backend)
        if vector.shape != like.shape:
            raise ShapeError(
                f"a feedback vector is {tuple(vector.shape)}; it needs d_model"
                f" {model.cfg.d_model} numbers."
            )
        placed.append((place(each.position, n_pos, "position"), each.strength * vector))
    return placed


def loop_bounds(model: Model, loop: tuple[int, int], depth: int, mode: Mode) -> tuple[int, int]:
    """Return the first layer and the one after the last, counted from the front.

    Raises
    ------
    HookError
        If the loop is not a range of layers.
    ShapeError
        If the depth is below 1.
    """
    if mode not in ("recurrent", "restart"):
        raise ArgumentError(f"mode={mode!r}: expected 'recurrent' or 'restart'.")
    if whole(depth, "depth") < 1:
        raise ShapeError(f"depth={depth}: the loop runs at least once.")
    n_layers = model.cfg.n_layers
    if isinstance(loop, str) or not hasattr(loop, "__len__") or len(loop) != 2:
        raise HookError(f"loop={loop!r}: name its first layer, and the one after its last.")
    ends = (whole(end, "loop") for end in loop)
    start, stop = (end + n_layers if end < 0 else end for end in ends)
    if not 0 <= start < stop <= n_layers:
        raise HookError(
            f"loop={loop} is not a range of layers: name the first and the one after the last of"
            f" 0 to {n_layers - 1}."
        )
    return start, stop
