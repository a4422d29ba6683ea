"""Gaussian noise on token embeddings, in units of their own spread."""

from __future__ import annotations

import math
import random

from mi_ref._typing import Array, Float
from mi_ref.model import Model

_BLOCK = 4096
"""Rows of the embedding that are widened to float64 at a time."""


def embedding_std(model: Model) -> float:
    """Return the standard deviation of all entries of the token embedding, as ``at.embed`` has it.

    A family's scale of the embedding counts; it is computed in float64, some rows at a time.
    """
    xp, host, embed = model.backend.xp, model.backend.to_host, model.params.embed
    total = squares = 0.0
    for start in range(0, embed.shape[0], _BLOCK):
        stop = min(start + _BLOCK, embed.shape[0])
        part = xp.astype(embed[start:stop, :], xp.float64)
        total += float(host(xp.sum(part)))
        squares += float(host(xp.sum(part * part)))
    count = embed.shape[0] * embed.shape[1]
    scale = 1.0 if model.cfg.embed_scale is None else model.cfg.embed_scale
    return abs(scale) * math.sqrt(squares / count - (total / count) ** 2)


def noise_draws(
    model: Model, std: float, n_pos: int, draws: int, seed: int
) -> list[Float[Array, "1 pos d_model"]]:
    """Return noise; from Python's own generator, so that every array library gets the same."""
    draw, xp, width = random.Random(seed), model.backend.xp, model.cfg.d_model
    return [
        xp.asarray(
            [[[draw.gauss(0.0, std) for _ in range(width)] for _ in range(n_pos)]],
            dtype=model.dtype,
            device=model.backend.device,
        )
        for _ in range(draws)
    ]
