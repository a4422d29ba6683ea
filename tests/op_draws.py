"""Arguments of every operation, drawn by hypothesis in every memory order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st

ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")


def feature_major(x: Any) -> Any:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0, -1)


def spread(x: Any) -> Any:
    wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
    wide[..., ::2] = x
    return wide[..., ::2]


def repeated(x: Any) -> Any:
    return np.broadcast_to(x[:1], x.shape)


ORDERS: tuple[Callable[[Any], Any], ...] = (
    np.ascontiguousarray,
    feature_major,
    np.asfortranarray,
    spread,
    lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    repeated,
)


class Draw:
    """Arguments of one call, from hypothesis: sizes, memory orders, scales."""

    def __init__(self, data: st.DataObject, dtype: str) -> None:
        self.data, self.dtype = data, dtype
        self.rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        self.batch, self.n_pos = self.size(3), self.size(20)
        self.n_kv_heads, self.group = self.size(3), self.size(3)
        self.d_head, self.d = 2 * self.size(5), self.size(70)
        self.masked, self.overwrite = data.draw(st.booleans()), data.draw(st.booleans())

    def size(self, most: int) -> int:
        return self.data.draw(st.integers(1, most))

    def array(self, *shape: int) -> Any:
        scale = self.data.draw(st.sampled_from([1.0, 1e-3, 30.0]))
        values = (self.rng.normal(size=shape) * scale).astype(self.dtype)
        return self.data.draw(st.sampled_from(ORDERS))(values)

    def rows(self) -> Any:
        return self.array(self.batch, self.n_pos, self.d)

    def heads(self, n_heads: int, n_pos: int) -> Any:
        return self.array(self.batch, n_pos, n_heads, self.d_head)

    def queries_and_keys(self) -> tuple[Any, Any]:
        queries = self.heads(self.n_kv_heads * self.group, self.size(self.n_pos))
        return queries, self.heads(self.n_kv_heads, self.n_pos)

    def square(self, hidden: float) -> Any:
        """Return an entry per query and key, later keys hidden or not."""
        n_query = self.size(self.n_pos)
        values = self.array(self.batch, self.n_kv_heads * self.group, n_query, self.n_pos)
        seen = np.tri(n_query, self.n_pos, self.n_pos - n_query, dtype=bool)
        return values if not self.masked else np.where(seen, values, values.dtype.type(hidden))

    def maybe(self, x: Any) -> Any:
        return self.data.draw(st.sampled_from([x, None]))

    def name(self) -> str:
        return self.data.draw(st.sampled_from((*ACTIVATIONS, "gelu_fast", "relu_squared")))


def attention_arguments(d: Draw) -> tuple[Any, ...]:
    q, k = d.queries_and_keys()
    return q, k, d.array(*k.shape)


def attention_options(scale: float) -> Callable[[Draw], dict[str, Any]]:
    def draw(d: Draw) -> dict[str, Any]:
        choose = d.data.draw
        starts = st.lists(st.integers(0, d.n_pos - 1), min_size=d.batch, max_size=d.batch)
        return {
            "scale": scale,
            "softcap": choose(st.sampled_from([None, 0.5, 2.0])),
            "window": choose(st.none() | st.integers(1, d.n_pos + 1)),
            "starts": choose(st.none() | starts.map(np.array)),
        }

    return draw


def rotate_arguments(d: Draw) -> tuple[Any, ...]:
    half = d.data.draw(st.integers(1, d.d_head // 2))
    rows = d.data.draw(st.sampled_from([(), (d.batch,)]))
    tables = [d.array(*rows, d.n_pos, half) for _ in range(2)]
    return d.heads(d.n_kv_heads, d.n_pos), *tables


def flags(*names: str) -> Callable[[Draw], dict[str, Any]]:
    return lambda d: {name: getattr(d, name) for name in names}


ARGUMENTS: dict[str, Callable[[Draw], tuple[Any, ...]]] = {
    "lay_out": lambda d: (d.rows(), d.maybe(d.rows())),
    "embed": lambda d: (d.array(9, d.d), d.rng.integers(0, 9, (d.batch, d.n_pos))),
    "linear": lambda d: (d.rows(), d.array(s := d.size(70), d.d), d.maybe(d.array(s))),
    "unembed": lambda d: (d.rows(), d.array(s := d.size(70), d.d), d.maybe(d.array(s))),
    "center": lambda d: (d.rows(),),
    "rms_scale": lambda d: (d.rows(), 1e-5),
    "rms_norm": lambda d: (d.rows(), d.array(d.d), d.maybe(d.array(d.d)), 1e-5),
    "activation": lambda d: (d.rows(), d.name()),
    "gate": lambda d: (d.rows(), d.rows(), d.name()),
    "rotate": rotate_arguments,
    "soft_cap": lambda d: (d.rows(), d.data.draw(st.sampled_from([0.25, 30.0]))),
    "attention_scores": lambda d: d.queries_and_keys(),
    "softmax": lambda d: (d.square(-math.inf),),
    "attention_pattern": lambda d: (d.square(-math.inf),),
    "mix_values": lambda d: (d.square(0.0), d.heads(d.n_kv_heads, d.n_pos)),
    "attention": attention_arguments,
    "top_k": lambda d: (d.rows(), d.size(d.d)),
}
OPTIONS: dict[str, Callable[[Draw], dict[str, Any]]] = {
    "gate": flags("overwrite"),
    "rotate": flags("overwrite"),
    "soft_cap": flags("overwrite"),
    "softmax": flags("overwrite"),
    "attention_pattern": flags("overwrite"),
    "attention_scores": attention_options(0.3),
    # Large scores would only amplify their own rounding.
    "attention": attention_options(0.002),
}
