"""Random configs of RWKV for `golden.fuzz`, and the reference's values for a random model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from golden.check.arrays import worst_error
from golden.rwkv.configs import Config, eps_of, sizes_of
from golden.rwkv.mixes import Array
from golden.rwkv.record import save_rwkv
from golden.rwkv.reference import forward
from golden.rwkv.weights import random_weights

LAST_DIGIT, STEADY = 6e-8, 1e-6
"""How far off all weights are put, and how far that may move any hook; both relative."""


def reference(
    config: Config, tokens: list[list[int]], rng: np.random.Generator, folder: Path
) -> dict[str, Array]:
    """Save a random model in `folder`; return every hook point of it.

    A head whose values nearly agree leaves the group norm few digits of them, in any float32
    program: weights are drawn until no head is like that.
    """
    eps = eps_of(config)
    while True:
        weights = random_weights(sizes_of(config), rng)
        hooks = forward(weights, tokens, eps).hooks
        shaken = {
            name: x * (1 + LAST_DIGIT * rng.standard_normal(x.shape)) for name, x in weights.items()
        }
        if worst_error(forward(shaken, tokens, eps).hooks, hooks) <= STEADY:
            break
    # Weights are multiples of bfloat16's steps, hence the same in all three float types.
    save_rwkv(weights, config, folder, torch.float32)
    return hooks


def _rwkv6(rng: Random) -> dict[str, Any]:
    return _finch(rng) if rng.random() < 0.5 else _fla_6(rng)


def _finch(rng: Random) -> dict[str, Any]:
    # The group norm makes 0 of a head of one, and 1 and -1 of a head of two.
    d_head = rng.randint(3, 8)
    d_model = d_head * rng.randint(1, 4)
    return {
        "attention_hidden_size": rng.choice([None, d_model]),
        "head_size_divisor": rng.choice([4, 8]),
        "hidden_size": d_model,
        # Below 10 columns the default of 3.5 times as many, rounded down, would be none.
        "intermediate_size": rng.choice([None, 7]) if d_model > 9 else rng.randint(5, 37),
        "layer_norm_epsilon": _eps(rng),
        "num_attention_heads": d_head,
        "num_hidden_layers": rng.randint(1, 4),
        "rescale_every": rng.choice([0, 1, 6]),
    }


def _fla(rng: Random, n_heads: int, d_head: int) -> dict[str, Any]:
    return {
        "hidden_ratio": rng.choice([None, 1, 2.5]),
        "hidden_size": n_heads * d_head,
        "intermediate_size": rng.choice([None, rng.randint(5, 37)]),
        "norm_eps": _eps(rng),
        "norm_first": rng.random() < 0.5,
        "num_hidden_layers": rng.randint(1, 4),
    }


def _fla_6(rng: Random) -> dict[str, Any]:
    n_heads = rng.randint(1, 4)
    return _fla(rng, n_heads, rng.randint(3, 8)) | {
        "expand_k": 1.0,
        "gate_low_rank_dim": rng.randint(1, 9),
        "num_heads": n_heads,
        "proj_low_rank_dim": rng.randint(1, 9),
    }


def _rwkv7(rng: Random) -> dict[str, Any]:
    n_heads, d_head = rng.randint(1, 4), rng.randint(3, 8)
    ranks = {f"{name}_low_rank_dim": rng.randint(1, 9) for name in ("decay", "a", "v", "gate")}
    group_norm = {"group_norm_eps": rng.choice([64e-5, 1e-4])} if rng.random() < 0.5 else {}
    return _fla(rng, n_heads, d_head) | ranks | group_norm | {"head_dim": d_head}


def _eps(rng: Random) -> float:
    return rng.choice([1e-5, 1e-6, 3e-4])


CONFIGS: Mapping[str, Callable[[Random], dict[str, Any]]] = {"rwkv6": _rwkv6, "rwkv7": _rwkv7}
"""By ``model_type``."""
