"""Edges of attention, from a query to a key: which there are, and what they weigh."""

from __future__ import annotations

from collections.abc import Sequence

from mi_ref.config.decoder import Attention
from mi_ref.errors import HookError
from mi_ref.hooks.sites import at
from mi_ref.model import LogitsWanted, Model
from mi_ref.ops.ops import visible
from mi_ref.run import Run


def sees(model: Model, layer: int, queries: Sequence[int], keys: Sequence[int]) -> list[list[bool]]:
    """Return whether each query sees each key in a layer, by query and then key."""
    xp, device = model.backend.xp, model.backend.device
    attn = model.cfg.layers[layer].mixer
    rows, columns = (xp.asarray(x, dtype=xp.int64, device=device) for x in (queries, keys))
    window = attn.window if isinstance(attn, Attention) else None
    seen = visible(rows, columns, window=window, starts=None, xp=xp)
    found: list[list[bool]] = model.backend.to_host(seen).tolist()
    return found


def refuse_unseen(
    model: Model, layers: Sequence[int], queries: Sequence[int], keys: Sequence[int]
) -> None:
    """Refuse edges of which there is none.

    Raises
    ------
    HookError
        If no query sees any of the keys in any of the layers.
    """
    if any(any(row) for layer in layers for row in sees(model, layer, queries, keys)):
        return
    raise HookError(
        f"no edge from queries {list(queries)} to keys {list(keys)} in layers {list(layers)}: a"
        " query sees itself and what comes before it, within the layer's window if it has one."
        " Name queries after the keys."
    )


def edge_weight(run: Run, layer: int, heads: Sequence[int], keys: Sequence[int]) -> float:
    """Return the weight that captured queries give to the keys together.

    A mean over heads and queries, of a run that captured ``at.pattern[layer]`` at those queries.
    """
    pattern = run.backend.to_host(run[at.pattern[layer]])[0]  # [head, query, key]
    weights = pattern[list(heads)][:, :, list(keys)].sum(axis=-1, dtype="float64")
    return float(weights.mean())


def logits_for(position: int, n_pos: int) -> tuple[LogitsWanted, int]:
    """Return which logits to ask a run for, and where it then has those of `position`.

    The last position's alone where that is enough: a vocabulary for each position is large.
    """
    return ("last", -1) if position == n_pos - 1 else ("all", position)
