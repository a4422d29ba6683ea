"""Time mix and channel mix of RWKV-6 and RWKV-7, written as their papers write them.

One token and one head after the other, in float64; nothing is fused, stacked or reordered for
speed, so that each line can be compared with its formula. Weights have the names of the authors'
``.pth`` files, without the block's prefix.

Source: B. Peng et al., "Eagle and Finch", arXiv 2404.05892 (RWKV-6), and "RWKV-7 Goose",
arXiv 2503.14456; the authors' code for what the papers leave open.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Weights = Mapping[str, Array]
Tap = Callable[[str, Array], None]
Heads = dict[str, Array]
"""What a token brings to the recurrence, ``[head, d_head]`` each; the gate is ``[d_model]``."""

SAME = 1e-13
"""How exactly the effective attention must give what the recurrence gave, relative."""


@dataclass(slots=True)
class LayerState:
    """What a layer remembers between two tokens.

    Attributes
    ----------
    x : Array
        ``[d_model]``, what time mix read at the token before; zeros at first.
    S : Array
        ``[head, d_key, d_value]``; zeros at first.
    x_channel : Array
        ``[d_model]``, what channel mix read at the token before; zeros at first.
    past : list of Heads
        Of all tokens so far, for the effective attention.
    """

    x: Array
    S: Array
    x_channel: Array
    past: list[Heads] = field(default_factory=list)


def time_mix_6(
    w: Weights, x: Array, state: LayerState, v_first: list[Array], eps: float, tap: Tap
) -> Array:
    """Return time mix's output for the token that reads `x`; `eps` is the group norm's."""
    token = _projections_6(w, x, state.x)
    state.past.append(token)
    r, k, v, decay = (token[name] for name in ("r", "k", "v", "decay"))
    u = w["time_faaaa"]
    y, bonus, write, alpha = _zeros(state)
    for h in range(len(u)):
        bonus[h] = np.sum(r[h] * u[h] * k[h]) * v[h]
        write[h] = np.outer(k[h], v[h])
        y[h] = r[h] @ (np.diag(u[h]) @ write[h] + state.S[h])
        state.S[h] = np.diag(decay[h]) @ state.S[h] + write[h]
        alpha[h] = _effective_attention_6(r[h], u[h], h, state.past)
    _tap(tap, x, state, token, {"bonus": bonus, "write": write}, y, alpha)
    state.x = x
    return w["output.weight"] @ (_group_norm(w, y, eps) * token["gate"])


def _projections_6(w: Weights, x: Array, shifted: Array) -> Heads:
    delta = shifted - x
    m = np.tanh((x + delta * w["time_maa_x"]) @ w["time_maa_w1"]).reshape(5, -1)
    x_w, x_k, x_v, x_r, x_g = (
        x + delta * (w[f"time_maa_{name}"] + m[j] @ w["time_maa_w2"][j])
        for j, name in enumerate("wkvrg")
    )
    d = w["time_decay"] + np.tanh(x_w @ w["time_decay_w1"]) @ w["time_decay_w2"]
    g = w["gate.weight"] @ x_g
    heads = w["time_faaaa"].shape
    return {
        "r": (w["receptance.weight"] @ x_r).reshape(heads),
        "decay": np.exp(-np.exp(d)).reshape(heads),
        "k": (w["key.weight"] @ x_k).reshape(heads),
        "v": (w["value.weight"] @ x_v).reshape(heads),
        "gate": g * sigmoid(g),
    }


def _effective_attention_6(r: Array, u: Array, h: int, past: list[Heads]) -> Array:
    """Return ``[key_pos]``: what the last token reads of itself by `u`, and of each one before."""
    alpha = np.zeros(len(past))
    alpha[-1] = np.sum(r * u * past[-1]["k"][h])
    # A token has decayed by every token between it and the reader, and by neither of the two.
    reads = r
    for i in range(len(past) - 2, -1, -1):
        alpha[i] = np.sum(reads * past[i]["k"][h])
        reads = reads * past[i]["decay"][h]
    return alpha


def time_mix_7(
    w: Weights, x: Array, state: LayerState, v_first: list[Array], eps: float, tap: Tap
) -> Array:
    """As `time_mix_6`; `v_first` is the first layer's value of this token, empty before it is."""
    token = _projections_7(w, x, state.x, v_first)
    state.past.append(token)
    r, k, v, decay, a, kk = (token[name] for name in ("r", "k", "v", "decay", "a", "kk"))
    y, bonus, write, alpha = _zeros(state)
    for h in range(len(r)):
        bonus[h] = np.sum(r[h] * k[h] * w["r_k"][h]) * v[h]
        write[h] = np.outer(k[h], v[h])
        # The paper's state is [value, key]; what is kept is [key, value], as in RWKV-6.
        S = state.S[h].T
        S = S @ np.diag(decay[h]) + np.outer(S @ -kk[h], kk[h] * a[h]) + np.outer(v[h], k[h])
        y[h] = S @ r[h]
        state.S[h] = S.T
        alpha[h] = _effective_attention_7(r[h], h, state.past)
    _tap(tap, x, state, token, {"bonus": bonus, "write": write}, y, alpha)
    state.x = x
    return w["output.weight"] @ ((_group_norm(w, y, eps) + bonus.reshape(-1)) * token["gate"])


def _projections_7(w: Weights, x: Array, shifted: Array, v_first: list[Array]) -> Heads:
    x_r, x_w, x_k, x_v, x_a, x_g = (x + (shifted - x) * w[f"x_{name}"] for name in "rwkvag")
    k = w["key.weight"] @ x_k
    v = w["value.weight"] @ x_v
    if v_first:
        v = v + (v_first[0] - v) * sigmoid(w["v0"] + (x_v @ w["v1"]) @ w["v2"])
    else:
        v_first.append(v)
    d = w["w0"] + np.tanh(x_w @ w["w1"]) @ w["w2"]
    a = sigmoid(w["a0"] + (x_a @ w["a1"]) @ w["a2"])
    heads = w["r_k"].shape
    kk = (k * w["k_k"]).reshape(heads)
    return {
        "r": (w["receptance.weight"] @ x_r).reshape(heads),
        "decay": np.exp(-np.exp(-0.5) * sigmoid(d)).reshape(heads),
        "a": a.reshape(heads),
        "kk": np.stack([row / max(np.linalg.norm(row), 1e-12) for row in kk]),
        "k": (k * (1 + (a - 1) * w["k_a"])).reshape(heads),
        "v": v.reshape(heads),
        "gate": sigmoid(x_g @ w["g1"]) @ w["g2"],
    }


def _effective_attention_7(r: Array, h: int, past: list[Heads]) -> Array:
    """Return ``[key_pos]``: what the last token reads of each after all later decay, removal."""
    alpha = np.zeros(len(past))
    reads = r
    for i in range(len(past) - 1, -1, -1):
        decay, kk, a, k = (past[i][name][h] for name in ("decay", "kk", "a", "k"))
        alpha[i] = np.sum(reads * k)
        reads = decay * reads - np.sum(kk * a * reads) * kk
    return alpha


def channel_mix_6(w: Weights, x: Array, state: LayerState, tap: Tap) -> Array:
    """Return channel mix's output for the token that reads `x`."""
    delta = state.x_channel - x
    gate = sigmoid(w["receptance.weight"] @ (x + delta * w["time_maa_r"]))
    _tap_shift(tap, "mlp", x, state.x_channel)
    tap("mlp.hook_gate", gate)
    state.x_channel = x
    return gate * _neurons(w, x + delta * w["time_maa_k"], tap)


def channel_mix_7(w: Weights, x: Array, state: LayerState, tap: Tap) -> Array:
    """As `channel_mix_6`, without the gate."""
    x_k = x + (state.x_channel - x) * w["x_k"]
    _tap_shift(tap, "mlp", x, state.x_channel)
    state.x_channel = x
    return _neurons(w, x_k, tap)


def _neurons(w: Weights, x_k: Array, tap: Tap) -> Array:
    pre = w["key.weight"] @ x_k
    post = np.maximum(pre, 0.0) ** 2
    out = w["value.weight"] @ post
    for name, value in {"pre": pre, "post": post, "out": out}.items():
        tap(f"mlp.hook_{name}", value)
    return out


def normalize(x: Array, eps: float) -> tuple[Array, Array]:
    """Return the root of variance plus `eps`, ``[1]``, and `x` centred and divided by it."""
    centred = x - np.mean(x)
    scale = np.sqrt(np.mean(centred**2) + eps)
    return np.array([scale]), centred / scale


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``."""
    return 1.0 / (1.0 + np.exp(-x))


def _group_norm(w: Weights, y: Array, eps: float) -> Array:
    normalized = np.stack([normalize(head, eps)[1] for head in y])
    return normalized.reshape(-1) * w["ln_x.weight"] + w["ln_x.bias"]


def _zeros(state: LayerState) -> tuple[Array, Array, Array, Array]:
    """Return room for output and bonus, what is written, and the effective attention."""
    n_heads, d_head, _ = state.S.shape
    heads = (n_heads, d_head)
    return (
        np.zeros(heads),
        np.zeros(heads),
        np.zeros(state.S.shape),
        np.zeros((n_heads, len(state.past))),
    )


def _tap(
    tap: Tap, x: Array, state: LayerState, token: Heads, more: Heads, y: Array, alpha: Array
) -> None:
    """Show a time mix's hook points in forward order, the effective attention checked."""
    read = np.array(
        [
            sum(alpha[h, i] * past["v"][h] for i, past in enumerate(state.past))
            for h in range(len(alpha))
        ]
    )
    off = np.linalg.norm(read - y)
    if not off <= SAME * np.linalg.norm(y):
        raise AssertionError(f"rwkv.hook_effective_attn: off rwkv.hook_wkv by {off:.1e}")
    _tap_shift(tap, "attn", x, state.x)
    after = {"state": state.S, "wkv": y, "effective_attn": alpha}
    for name, value in (token | more | after).items():
        tap(f"rwkv.hook_{name}", value)


def _tap_shift(tap: Tap, reader: str, x: Array, shifted: Array) -> None:
    tap(f"{reader}.hook_in", x)
    tap("mlp.hook_shift" if reader == "mlp" else "rwkv.hook_shift", shifted)
