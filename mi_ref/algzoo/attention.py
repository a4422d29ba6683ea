"""AlgZoo's transformer: layers of one head that sees every position, read off at the last one.

Embedding plus position, each layer added to the residual, no norm, no MLP, no biases, and the
unembedding. Scores are over the root of the width.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

from mi_ref._typing import Array, Float, Int
from mi_ref.algzoo import weight_shapes
from mi_ref.algzoo.networks import Network
from mi_ref.errors import ShapeError, TokenError, WeightError


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Attention(Network):
    """A transformer without norms, MLPs and biases.

    Raises
    ------
    WeightError
        If the weights do not fit one another.
    """

    embed: Float[Array, "value width"]
    pos_embed: Float[Array, "pos width"]
    unembed: Float[Array, "answer width"]
    in_proj: tuple[Float[Array, "three_width width"], ...]
    """Queries, keys and values of each layer, one under the other."""
    out_proj: tuple[Float[Array, "to_width width"], ...]

    def __post_init__(self) -> None:
        if not self.in_proj or len(self.in_proj) != len(self.out_proj):
            raise WeightError(
                f"{len(self.in_proj)} in_proj and {len(self.out_proj)} out_proj: a transformer has"
                " one of each per layer, and a layer at least."
            )
        self._check(weight_shapes.attention(len(self.in_proj)))

    @property
    def weights(self) -> dict[str, Array]:
        """Every weight, by the name that AlgZoo's files give it."""
        arrays = [self.embed, self.pos_embed, self.unembed]
        for pair in zip(self.in_proj, self.out_proj, strict=True):
            arrays += pair
        return dict(zip(weight_shapes.attention(len(self.in_proj)), arrays, strict=True))

    @property
    def parts(self) -> tuple[str, ...]:
        """Its layers."""
        return tuple(f"layer {layer}" for layer in range(len(self.in_proj)))

    @property
    def n_answers(self) -> int:
        """How many logits."""
        return int(self.unembed.shape[0])

    def logits(self, x: Array, silent: Collection[int] = ()) -> Float[Array, "input answer"]:
        """Return the answers; see `Network.logits`."""
        _, resid = self._layers(x, silent)
        return self.backend.ops.linear(resid[:, -1, :], self.unembed, None)

    def trace(
        self, x: Array, silent: Collection[int] = ()
    ) -> Float[Array, "input layer query_pos key_pos"]:
        """Return where each position looks, in each layer."""
        return self.backend.xp.stack(self._layers(x, silent)[0], axis=1)

    def _layers(self, x: Array, silent: Collection[int]) -> tuple[list[Array], Array]:
        ops, width = self.backend.ops, self.embed.shape[1]
        resid = ops.embed(self.embed, self._values(x)) + self.pos_embed
        kept, patterns = self._kept(silent), list[Array]()
        for layer, (into, out) in enumerate(zip(self.in_proj, self.out_proj, strict=True)):
            qkv = ops.linear(resid, into, None)  # [input, pos, 3 * width]
            q, k, v = (qkv[..., n * width : (n + 1) * width] for n in range(3))
            patterns.append(ops.softmax(q @ k.mT / math.sqrt(width), overwrite=True))
            resid = resid + ops.linear(patterns[-1] @ v, out, None) * kept[layer]
        return patterns, resid

    def _values(self, x: Array) -> Int[Array, "input pos"]:
        """Return inputs as they are looked up; refuse what cannot be."""
        xp, n_pos, n_values = self.backend.xp, self.pos_embed.shape[0], self.embed.shape[0]
        found = xp.asarray(x, device=self.backend.device)
        if not xp.isdtype(found.dtype, "integral") or found.shape[1:] != (n_pos,):
            raise ShapeError(
                f"this transformer reads whole numbers [input, {n_pos}], not {found.dtype}"
                f" {tuple(found.shape)}."
            )
        if bool(xp.any((found < 0) | (found >= n_values))):
            raise TokenError(
                f"the inputs hold {int(xp.min(found))} to {int(xp.max(found))}; this transformer"
                f" reads 0 to {n_values - 1}."
            )
        return found
