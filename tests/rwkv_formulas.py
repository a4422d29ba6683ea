"""RWKV's hook points, computed from the points before them and the weights, in plain NumPy.

Every formula takes the captured values, edits included, and returns the next point's value, which
shows that an edit acts where it was made and that later points read it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mi_ref import LayerState, Model, Run, at
from mi_ref.config import LayerNorm
from mi_ref.params import LowRank, Norm, TimeMix6Params, TimeMix7Params
from mi_ref.sites import Point

Formula = tuple[Point, Any]


def sigmoid(x: Any) -> Any:
    return 1.0 / (1.0 + np.exp(-x))


def silu(x: Any) -> Any:
    return x * sigmoid(x)


def layer_norm(x: Any, eps: float) -> tuple[Any, Any]:
    """Return the denominator and the quotient."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    return scale, centred / scale


def by_token(
    r: Any, decay: Any, writes: Any, removal: tuple[Any, Any] | None, start: Any, own: Any = 0.0
) -> tuple[Any, Any]:
    """Return each position's read and the state after it, token by token.

    Parameters
    ----------
    r, decay : Array
        ``[batch, pos, head, d_key]``.
    writes : Array
        ``[batch, pos, head, d_key, d_value]``.
    removal : tuple of Array, or None
        Removal key and in-context learning rate, as `r`; None for RWKV-6.
    start : Array
        ``[batch, head, d_key, d_value]``.
    own : Array
        RWKV-6's read of the position itself.
    """
    reads, states = np.zeros_like(writes[..., 0, :]), np.zeros_like(writes)
    for row, head in np.ndindex(writes.shape[0], writes.shape[2]):
        state = start[row, head]
        for pos in range(writes.shape[1]):
            here = (row, pos, head)
            if removal is None:
                reads[here] = r[here] @ state
                state = decay[here][:, None] * state + writes[here]
            else:
                key, rate = removal[0][here], removal[1][here]
                gone = np.outer(rate * key, key @ state)
                state = decay[here][:, None] * state - gone + writes[here]
                reads[here] = r[here] @ state
            states[here] = state
    return reads + own, states


class Pass:
    """Everything one run captured, on the host, and the expected value of each point.

    Parameters
    ----------
    model : Model
        A recurrent one.
    prompt : list of list of int
        Rows of one length.
    **options
        As for `Model.run`.
    """

    def __init__(self, model: Model, prompt: list[list[int]], **options: Any) -> None:
        self.model, self.host = model, model.backend.to_host
        points = [entry.point for entry in model.hook_points]
        self.run: Run = model.run(prompt, capture=points, **options)
        self.arrays = {point: self.host(array) for point, array in self.run.cache.items()}
        self.state = options.get("state")

    def __getitem__(self, point: Point) -> Any:
        return self.arrays[point]

    def removal(self, n: int) -> tuple[Any, Any] | None:
        """Return removal key and learning rate of a layer; None for RWKV-6."""
        return (self[at.rwkv_kk[n]], self[at.rwkv_a[n]]) if self.is_7(n) else None

    def is_7(self, n: int) -> bool:
        """Whether a layer removes from its state."""
        return isinstance(self.model.params.layers[n].attn, TimeMix7Params)  # type: ignore[union-attr]

    def start(self, n: int) -> Any:
        """Return the state that a layer received."""
        state = self[at.rwkv_state[n]]
        return np.zeros_like(state[:, 0]) if self.state is None else self.host(self.state[n].wkv)

    def formulas(self) -> Iterator[Formula]:
        """Yield every point except the embedding, with its expected value."""
        model = self.model
        x, first = self[at.embed], model.params.ln_embed
        if first is not None and model.cfg.ln_embed is not None:
            x = self._gained(layer_norm(x, model.cfg.ln_embed.eps)[1], first)
        for n in range(model.cfg.n_layers):
            yield at.resid_pre[n], x
            yield from self._time_mix(n)
            yield from self._channel_mix(n)
            x = self[at.resid_post[n]]
        ends = (at.ln_final_scale, at.ln_final_normalized, at.unembed_in)
        assert isinstance(model.cfg.ln_final, LayerNorm)
        yield from self._norm(x, model.cfg.ln_final, model.params.ln_final, *ends)
        yield at.logits, self._through(self[at.unembed_in], model.params.unembed)

    def _time_mix(self, n: int) -> Iterator[Formula]:
        w, layer = self._weights(n), self.model.cfg.layers[n]
        points = (at.ln1_scale[n], at.ln1_normalized[n], at.attn_in[n])
        yield from self._norm(self[at.resid_pre[n]], layer.ln1, w.ln1, *points)
        yield at.rwkv_shift[n], self._shifted(at.attn_in[n], "attn_shift", n)
        yield from self._inputs_7(w.attn, n) if self.is_7(n) else self._inputs_6(w.attn, n)
        r, k, v = (self[site[n]] for site in (at.rwkv_r, at.rwkv_k, at.rwkv_v))
        own = (r * k * self.host(w.attn.bonus)).sum(axis=-1, keepdims=True)
        yield at.rwkv_bonus[n], own * v
        yield at.rwkv_write[n], k[..., :, None] * v[..., None, :]
        yield from self._recurrence(n)
        wkv, bonus = self[at.rwkv_wkv[n]], self[at.rwkv_bonus[n]]
        shape = self[at.attn_in[n]].shape
        normed = np.reshape(layer_norm(wkv, layer.mixer.group_norm_eps)[1], shape)  # type: ignore[union-attr]
        out = self._gained(normed, w.attn.group_norm)
        if self.is_7(n):
            out = out + np.reshape(bonus, shape)
        yield at.attn_out_raw[n], self._through(out * self[at.rwkv_gate[n]], w.attn.out)
        yield at.attn_out[n], self[at.attn_out_raw[n]]
        yield at.resid_mid[n], self[at.resid_pre[n]] + self[at.attn_out[n]]

    def _recurrence(self, n: int) -> Iterator[Formula]:
        """Compare each state with the captured one before it, which an edit may have changed."""
        states, writes = self[at.rwkv_state[n]], self[at.rwkv_write[n]]
        r, decay, removal = self[at.rwkv_r[n]], self[at.rwkv_decay[n]], self.removal(n)
        earlier = np.concatenate([self.start(n)[:, None], states[:, :-1]], axis=1)
        after = decay[..., None] * earlier + writes
        if removal is not None:
            key, rate = removal
            held = np.einsum("bphk,bphkv->bphv", key, earlier)
            after = after - (rate * key)[..., None] * held[..., None, :]
        yield at.rwkv_state[n], after
        seen = earlier if removal is None else states
        read = np.einsum("bphk,bphkv->bphv", r, seen)
        yield at.rwkv_wkv[n], read + self[at.rwkv_bonus[n]] if removal is None else read

    def _inputs_6(self, w: TimeMix6Params, n: int) -> Iterator[Formula]:
        x, before, change = self._neighbours(at.attn_in[n], at.rwkv_shift[n])
        hint = x + change * self.host(w.shift)

        def mixed(name: str) -> Any:
            share = self.host(w.shifts[name]) + self._low_rank(hint, w.shift_maps[name], np.tanh)
            return (1.0 - share) * x + share * before

        speed = self.host(w.decay) + self._low_rank(mixed("w"), w.decay_map, np.tanh)
        for site, name, linear in (
            (at.rwkv_r, "r", w.receptance), (at.rwkv_k, "k", w.key), (at.rwkv_v, "v", w.value)
        ):  # fmt: skip
            yield site[n], self._heads(self._through(mixed(name), linear), n)
        yield at.rwkv_decay[n], self._heads(np.exp(-np.exp(speed)), n)
        yield at.rwkv_gate[n], silu(self._through(mixed("g"), w.gate))

    def _inputs_7(self, w: TimeMix7Params, n: int) -> Iterator[Formula]:
        x, before, _ = self._neighbours(at.attn_in[n], at.rwkv_shift[n])

        def mixed(name: str) -> Any:
            share = self.host(w.shifts[name])
            return (1.0 - share) * x + share * before

        def heads(x: Any) -> Any:
            return self._heads(x, n)

        yield at.rwkv_r[n], heads(self._through(mixed("r"), w.receptance))
        speed = self.host(w.decay) + self._low_rank(mixed("w"), w.decay_map, np.tanh)
        yield at.rwkv_decay[n], heads(np.exp(-np.exp(-0.5) * sigmoid(speed)))
        rate = self.host(w.rate) + self._low_rank(mixed("a"), w.rate_map)
        yield at.rwkv_a[n], heads(sigmoid(rate))
        key = self._through(mixed("k"), w.key)
        removal = heads(key * self.host(w.removal))
        yield at.rwkv_kk[n], removal / np.linalg.norm(removal, axis=-1, keepdims=True)
        share = heads(np.broadcast_to(self.host(w.key_rate), key.shape))
        yield at.rwkv_k[n], heads(key) * (1.0 - share + share * self[at.rwkv_a[n]])
        value = heads(self._through(mixed("v"), w.value))
        if w.value_mix is not None and w.value_map is not None:
            share = heads(sigmoid(self.host(w.value_mix) + self._low_rank(mixed("v"), w.value_map)))
            value = (1.0 - share) * value + share * self[at.rwkv_v[0]]
        yield at.rwkv_v[n], value
        yield at.rwkv_gate[n], self._low_rank(mixed("g"), w.gate_map, sigmoid)

    def _channel_mix(self, n: int) -> Iterator[Formula]:
        w, layer = self._weights(n), self.model.cfg.layers[n]
        points = (at.ln2_scale[n], at.ln2_normalized[n], at.mlp_in[n])
        yield from self._norm(self[at.resid_mid[n]], layer.ln2, w.ln2, *points)
        yield at.mlp_shift[n], self._shifted(at.mlp_in[n], "mlp_shift", n)
        x, _, change = self._neighbours(at.mlp_in[n], at.mlp_shift[n])
        yield at.pre[n], self._through(x + change * self.host(w.mlp.shift), w.mlp.into)
        yield at.post[n], np.maximum(self[at.pre[n]], 0.0) ** 2
        yield at.mlp_out_raw[n], self._through(self[at.post[n]], w.mlp.out)
        out = self[at.mlp_out_raw[n]]
        if w.mlp.gate is not None:
            read = x + change * self.host(w.mlp.gate_shift)
            yield at.mlp_gate[n], sigmoid(self._through(read, w.mlp.gate))
            out = self[at.mlp_gate[n]] * out
        yield at.mlp_out[n], out
        yield at.resid_post[n], self[at.resid_mid[n]] + self[at.mlp_out[n]]

    def _norm(self, x: Any, kind: Any, w: Norm, *points: Point) -> Iterator[Formula]:
        scale, _ = layer_norm(x, kind.eps)
        yield points[0], scale
        yield points[1], (x - x.mean(axis=-1, keepdims=True)) / self[points[0]]
        yield points[2], self._gained(self[points[1]], w)

    def _weights(self, n: int) -> Any:
        return self.model.params.layers[n]

    def _neighbours(self, here: Point, shifted: Point) -> tuple[Any, Any, Any]:
        x, before = self[here], self[shifted]
        return x, before, before - x

    def _shifted(self, point: Point, part: str, n: int) -> Any:
        x = self[point]
        handed: LayerState | None = None if self.state is None else self.state[n]
        first = np.zeros_like(x[:, 0]) if handed is None else self.host(getattr(handed, part))
        return np.concatenate([first[:, None], x[:, :-1]], axis=1)

    def _heads(self, x: Any, n: int) -> Any:
        attn = self.model.cfg.layers[n].mixer
        return np.reshape(x, (*x.shape[:2], attn.n_heads, attn.d_head))

    def _gained(self, x: Any, w: Norm) -> Any:
        bias = 0.0 if w.bias is None else self.host(w.bias)
        return x * self.host(w.weight) + bias

    def _through(self, x: Any, w: Any) -> Any:
        return x @ self.host(w.weight).T

    def _low_rank(self, x: Any, w: LowRank, middle: Any = lambda x: x) -> Any:
        return middle(x @ self.host(w.down).T) @ self.host(w.up).T
