"""Edges of attention, from a query to a key: which there are, and what they weigh."""

from __future__ import annotations

from collections.abc import Sequence

from mi_ref.config import Attention
from mi_ref.errors import HookError
from mi_ref.model import LogitsWanted, Model
from mi_ref.run import Run
from mi_ref.sites import at


def sees(model: Model, layer: int, query: int, key: int) -> bool:
    """Whether a position may look at another: neither a later one nor one beyond the window."""
    attn = model.cfg.layers[layer].mixer
    window = attn.window if isinstance(attn, Attention) else None
    return key <= query and (window is None or query - key < window)


def refuse_unseen(
    model: Model, layers: Sequence[int], queries: Sequence[int], keys: Sequence[int]
) -> None:
    """Refuse edges of which there is none.

    Raises
    ------
    HookError
        If no query sees any of the keys in any of the layers.
    """
    if any(sees(model, layer, q, k) for layer in layers for q in queries for k in keys):
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
