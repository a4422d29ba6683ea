"""Random weights of RWKV under the names of a ``.pth`` file, in its order.

They are large where trained weights are large and initial ones are not, so that each weight changes
the logits and a wrong formula changes its hook. `check_weights_count` checks the former.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from golden.check.arrays import relative_error
from golden.rwkv.configs import Sizes
from golden.rwkv.mixes import Array, Weights
from golden.rwkv.reference import Eps, forward

WEIGHT_COUNTS, EPS_COUNTS = 5e-3, 2e-5
"""How far the logits must move, relative: without a weight, and with an epsilon doubled."""


def random_weights(sizes: Sizes, rng: np.random.Generator) -> dict[str, Array]:
    """Return float64 weights that bfloat16 holds exactly."""
    draw = _Draw(sizes, rng)
    weights = {"emb.weight": 0.3 * draw.normal(sizes.d_vocab, sizes.d_model)}
    for layer in range(sizes.n_layers):
        block = f"blocks.{layer}."
        if layer == 0 and sizes.norm_first:
            # A small residual stream, so that a wrong epsilon shows behind this norm too.
            weights |= {f"{block}ln0.{key}": 0.3 * x for key, x in draw.norm().items()}
        for norm in ("ln1", "ln2"):
            weights |= {f"{block}{norm}.{key}": x for key, x in draw.norm().items()}
        att, ffn = (
            (draw.attention_6(), draw.ffn_6())
            if sizes.version == 6
            else (draw.attention_7(layer), draw.ffn_7())
        )
        weights |= {f"{block}att.{name}": x for name, x in att.items()}
        weights |= {f"{block}ffn.{name}": x for name, x in ffn.items()}
    weights |= {f"ln_out.{key}": x for key, x in draw.norm().items()}
    weights["head.weight"] = draw.map(sizes.d_vocab, sizes.d_model)
    return {name: _rounded(x) for name, x in weights.items()}


def check_weights_count(weights: Weights, tokens: list[list[int]], eps: Eps) -> None:
    """Check that leaving out any weight, or doubling either epsilon, changes the logits.

    Raises
    ------
    AssertionError
        Naming the first that hardly matters.
    """
    logits = _logits(weights, tokens, eps)
    others: dict[str, tuple[Weights, Eps, float]] = {
        name: ({**weights, name: 0 * x}, eps, WEIGHT_COUNTS) for name, x in weights.items()
    }
    others["layer-norm eps"] = weights, replace(eps, layer_norm=2 * eps.layer_norm), EPS_COUNTS
    others["group-norm eps"] = weights, replace(eps, group_norm=2 * eps.group_norm), EPS_COUNTS
    for name, (changed, changed_eps, bound) in others.items():
        moved = relative_error(_logits(changed, tokens, changed_eps), logits)
        if moved < bound:
            raise AssertionError(f"{name} hardly matters: without it logits move by {moved:.1e}")


def _logits(weights: Weights, tokens: list[list[int]], eps: Eps) -> Array:
    return forward(weights, tokens, eps).hooks["unembed.hook_out"]


class _Draw:
    def __init__(self, sizes: Sizes, rng: np.random.Generator) -> None:
        self.sizes, self.rng = sizes, rng

    def normal(self, *shape: int) -> Array:
        return self.rng.standard_normal(shape)

    def map(self, *shape: int, gain: float = 1.0) -> Array:
        """A matrix ``[out, in]``."""
        return gain * self.normal(*shape) / np.sqrt(shape[-1])

    def low_rank(self, rank: int, gain: float = 1.0) -> tuple[Array, Array]:
        """Two matrices ``[in, rank]`` and ``[rank, out]``."""
        d_model = self.sizes.d_model
        return self.map(rank, d_model).T, self.map(d_model, rank, gain=gain).T

    def vector(self, low: float, high: float) -> Array:
        return self.rng.uniform(low, high, (1, 1, self.sizes.d_model))

    def norm(self) -> dict[str, Array]:
        d_model = self.sizes.d_model
        return {"weight": 1.0 + 0.3 * self.normal(d_model), "bias": 0.5 * self.normal(d_model)}

    def maps(self, *names: str, gain: float = 1.5) -> dict[str, Array]:
        d_model = self.sizes.d_model
        return {f"{name}.weight": self.map(d_model, d_model, gain=gain) for name in names}

    def heads(self) -> Array:
        d_head = self.sizes.d_head
        return self.normal(self.sizes.d_model // d_head, d_head)

    def attention_6(self) -> dict[str, Array]:
        # Decay exp(-exp(d)) runs from 0.99 down to 0.01 with these.
        ranks = self.sizes.ranks
        mixes = [self.low_rank(ranks["mix"], gain=0.5) for _ in range(5)]
        decay = self.low_rank(ranks["decay"], gain=0.5)
        return {
            **{f"time_maa_{name}": self.vector(0, 1) for name in "xwkvrg"},
            "time_maa_w1": np.concatenate([down for down, _ in mixes], axis=1),
            "time_maa_w2": np.stack([up for _, up in mixes]),
            "time_decay": self.vector(-4.5, 1.3),
            "time_decay_w1": decay[0],
            "time_decay_w2": decay[1],
            "time_faaaa": self.heads(),
            **self.maps("receptance", "key", "value", "gate"),
            **self.maps("output", gain=0.5),
            **{f"ln_x.{key}": x for key, x in self.norm().items()},
        }

    def ffn_6(self) -> dict[str, Array]:
        mixes = {f"time_maa_{name}": self.vector(0, 1) for name in "kr"}
        return {**mixes, **self.neurons(), **self.maps("receptance")}

    def attention_7(self, layer: int) -> dict[str, Array]:
        # Decay runs over nearly all that is possible, from 0.56 to 0.99.
        ranks, weights = self.sizes.ranks, {f"x_{name}": self.vector(0, 1) for name in "rwkvag"}
        for name in "wavg" if layer else "wag":
            low = self.low_rank(ranks[name], gain=2.0 if name in "wg" else 1.0)
            weights |= {f"{name}1": low[0], f"{name}2": low[1]}
        weights["w0"] = self.vector(-4, 3)
        weights["a0"] = self.vector(-2, 2)
        if layer:
            weights["v0"] = self.vector(-2, 2)
        return {
            **weights,
            "k_k": self.vector(0.3, 1.7),
            "k_a": self.vector(0.3, 1.7),
            "r_k": self.heads(),
            **self.maps("receptance", "key", "value"),
            **self.maps("output", gain=0.5),
            **{f"ln_x.{key}": x for key, x in self.norm().items()},
        }

    def ffn_7(self) -> dict[str, Array]:
        return {"x_k": self.vector(0, 1), **self.neurons()}

    def neurons(self) -> dict[str, Array]:
        d_model, d_mlp = self.sizes.d_model, self.sizes.d_mlp
        return {"key.weight": self.map(d_mlp, d_model), "value.weight": self.map(d_model, d_mlp)}


def _rounded(x: Array) -> Array:
    rounded: Array = torch.from_numpy(np.asarray(x)).to(torch.bfloat16).to(torch.float64).numpy()
    return rounded
