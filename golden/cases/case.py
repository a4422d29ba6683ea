"""The definition of a golden case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One tiny random model and the tokens it is run on.

    Parameters
    ----------
    name : str
        Folder below ``golden/``.
    config : Mapping
        What ``config.json`` would say on the Hub.
    tokens : tuple of int
        ``(batch, pos)``.
    seed : int
        Of the weights and the tokens.
    covers : str
        What only this case would catch.
    """

    name: str
    config: Mapping[str, Any]
    tokens: tuple[int, int]
    seed: int
    covers: str


def sizes(
    n_heads: int,
    n_kv_heads: int | None,
    d_model: int,
    d_mlp: int,
    n_ctx: int = 64,
    *,
    n_layers: int = 2,
    d_vocab: int = 48,
) -> dict[str, Any]:
    """Return the sizes of a config; no ``num_key_value_heads`` if that is None.

    Within a case no two of n_heads, n_kv_heads, d_head, d_model, d_mlp, d_vocab and the length of
    the prompt should be equal, apart from n_heads = n_kv_heads in multi-head attention: swapped
    axes then show in the shape.
    """
    sizes = {
        "hidden_size": d_model,
        "intermediate_size": d_mlp,
        "max_position_embeddings": n_ctx,
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "num_key_value_heads": n_kv_heads,
        "vocab_size": d_vocab,
    }
    return {key: value for key, value in sizes.items() if value is not None}
