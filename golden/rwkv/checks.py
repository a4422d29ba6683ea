"""Identities that the recorded arrays of an RWKV case must satisfy, for all positions at once.

Each hook point is compared with a computation from earlier ones, written differently from the
reference: in arrays of all positions and sums over named axes. Raises
`AssertionError` naming the hook.
"""

from __future__ import annotations

import numpy as np

from golden.check.arrays import IDENTITY_TOLERANCE, relative_error
from golden.rwkv.mixes import Array, Weights, sigmoid
from golden.rwkv.reference import Eps, Forward, is_rwkv6, under


def check_rwkv_identities(
    weights: Weights, tokens: list[list[int]], eps: Eps, run: Forward
) -> None:
    """Check every hook point and the last states of `run`."""
    hooks = run.hooks
    _equal("hook_embed", hooks["hook_embed"], weights["emb.weight"][np.array(tokens)])
    x = hooks["hook_embed"]
    if "blocks.0.ln0.weight" in weights:
        x = _layer_norm(weights, "blocks.0.ln0", x, eps.layer_norm)
    value_of_first: Array | None = None
    for layer in range(len(run.states) // 3):
        at = _Layer(weights, layer, run, eps)
        at.equal("hook_resid_pre", x)
        at.check_norm("ln1", "hook_resid_pre", "attn.hook_in")
        at.check_shift("attn.hook_in", "rwkv.hook_shift", "x")
        value_of_first = (_check_time_mix_6 if at.is_6 else _check_time_mix_7)(at, value_of_first)
        at.equal("hook_attn_out", at["attn.hook_out"])
        at.equal("hook_resid_mid", at["hook_resid_pre"] + at["hook_attn_out"])
        at.check_norm("ln2", "hook_resid_mid", "mlp.hook_in")
        at.check_shift("mlp.hook_in", "mlp.hook_shift", "x_channel")
        _check_channel_mix(at)
        at.equal("hook_resid_post", at["hook_resid_mid"] + at["hook_mlp_out"])
        x = at["hook_resid_post"]
    final = {name.replace("ln_out", "ln_final"): x for name, x in weights.items()}
    _check_norm(final, "ln_final", hooks, "", x, eps.layer_norm, "unembed.hook_in")
    _equal("unembed.hook_out", hooks["unembed.hook_out"],
           hooks["unembed.hook_in"] @ weights["head.weight"].T)  # fmt: skip


class _Layer:
    """One layer: its hooks by their strings, and its weights."""

    def __init__(self, weights: Weights, layer: int, run: Forward, eps: Eps) -> None:
        self.prefix, self.hooks, self.eps = f"blocks.{layer}.", run.hooks, eps
        self.is_6, self.block = is_rwkv6(weights), under(weights, f"blocks.{layer}.")
        self.att, self.ffn = under(self.block, "att."), under(self.block, "ffn.")
        self.last = {name: run.states[f"{layer}.{name}"] for name in ("x", "S", "x_channel")}

    def __getitem__(self, hook: str) -> Array:
        return self.hooks[self.prefix + hook]

    def equal(self, hook: str, expected: Array) -> None:
        _equal(self.prefix + hook, self[hook], expected)

    def check_norm(self, name: str, source: str, reader: str) -> None:
        _check_norm(
            self.block, name, self.hooks, self.prefix, self[source], self.eps.layer_norm, reader
        )

    def check_shift(self, source: str, shift: str, last: str) -> None:
        self.equal(shift, _before(self[source]))
        _equal(f"{self.prefix}{last} at last", self.last[last], self[source][:, -1])

    def heads(self, x: Array) -> Array:
        return x.reshape(*x.shape[:-1], *self["rwkv.hook_r"].shape[-2:])

    def mixed(self, mu: Array) -> Array:
        """Return the mix of this position and the one before, `mu` of the latter."""
        return (1 - mu) * self["attn.hook_in"] + mu * self["rwkv.hook_shift"]


def _check_time_mix_6(at: _Layer, _: Array | None) -> None:
    att, n = at.att, at.att["time_maa_w2"].shape[1]
    down = np.tanh(at.mixed(att["time_maa_x"]) @ att["time_maa_w1"])
    x = {
        name: at.mixed(att[f"time_maa_{name}"] + down[..., n * j : n * j + n] @ up)
        for (j, name), up in zip(enumerate("wkvrg"), att["time_maa_w2"], strict=True)
    }
    at.equal("rwkv.hook_r", at.heads(x["r"] @ att["receptance.weight"].T))
    at.equal("rwkv.hook_k", at.heads(x["k"] @ att["key.weight"].T))
    at.equal("rwkv.hook_v", at.heads(x["v"] @ att["value.weight"].T))
    raw = att["time_decay"] + np.tanh(x["w"] @ att["time_decay_w1"]) @ att["time_decay_w2"]
    at.equal("rwkv.hook_decay", at.heads(np.exp(-np.exp(raw))))
    gate = x["g"] @ att["gate.weight"].T
    at.equal("rwkv.hook_gate", gate / (1 + np.exp(-gate)))
    r, k, u = at["rwkv.hook_r"], at["rwkv.hook_k"], att["time_faaaa"]
    state_before = _check_state(at, removed=0.0)
    at.equal(
        "rwkv.hook_wkv", np.einsum("bphk,bphkv->bphv", r, state_before) + at["rwkv.hook_bonus"]
    )
    _check_readout(at, np.einsum("bphk,hk,bphk->bph", r, u, k), added=0.0)
    own = np.einsum("bhpp->bph", at["rwkv.hook_effective_attn"])
    _equal(f"{at.prefix}rwkv.hook_effective_attn, diagonal", own, (r * u * k).sum(-1))


def _check_time_mix_7(at: _Layer, value_of_first: Array | None) -> Array:
    att = at.att
    x = {name: at.mixed(att[f"x_{name}"]) for name in "rwkvag"}
    at.equal("rwkv.hook_r", at.heads(x["r"] @ att["receptance.weight"].T))
    log_decay = sigmoid(att["w0"] + np.tanh(x["w"] @ att["w1"]) @ att["w2"]) / np.sqrt(np.e)
    at.equal("rwkv.hook_decay", at.heads(np.exp(-log_decay)))
    a = sigmoid(att["a0"] + x["a"] @ (att["a1"] @ att["a2"]))
    at.equal("rwkv.hook_a", at.heads(a))
    key = x["k"] @ att["key.weight"].T
    removal = at.heads(key * att["k_k"])
    at.equal("rwkv.hook_kk", removal / np.linalg.norm(removal, axis=-1, keepdims=True))
    at.equal("rwkv.hook_k", at.heads(key * ((1 - att["k_a"]) + a * att["k_a"])))
    value = own_value = at.heads(x["v"] @ att["value.weight"].T)
    if value_of_first is not None:
        share = at.heads(sigmoid(att["v0"] + x["v"] @ (att["v1"] @ att["v2"])))
        value = share * value_of_first + (1 - share) * own_value
    at.equal("rwkv.hook_v", value)
    at.equal("rwkv.hook_gate", sigmoid(x["g"] @ att["g1"]) @ att["g2"])
    r, k, kk = at["rwkv.hook_r"], at["rwkv.hook_k"], at["rwkv.hook_kk"]
    found = np.einsum("bphk,bphkv->bphv", kk, _before(at["rwkv.hook_state"]))
    _check_state(at, removed=np.einsum("bphk,bphv->bphkv", kk * at["rwkv.hook_a"], found))
    at.equal("rwkv.hook_wkv", np.einsum("bphk,bphkv->bphv", r, at["rwkv.hook_state"]))
    bonus = at["rwkv.hook_bonus"]
    _check_readout(at, np.einsum("bphk,bphk,hk->bph", r, k, att["r_k"]), added=bonus)
    return value if value_of_first is None else value_of_first


def _check_state(at: _Layer, removed: Array | float) -> Array:
    """Check what is written and the states; return the state before each position."""
    at.equal("rwkv.hook_write", at["rwkv.hook_k"][..., None] * at["rwkv.hook_v"][..., None, :])
    before = _before(at["rwkv.hook_state"])
    kept = at["rwkv.hook_decay"][..., None] * before - removed
    at.equal("rwkv.hook_state", kept + at["rwkv.hook_write"])
    _equal(f"{at.prefix}S at last", at.last["S"], at["rwkv.hook_state"][:, -1])
    return before


def _check_readout(at: _Layer, own: Array, added: Array | float) -> None:
    """Check bonus, effective attention and output; `added` comes after the group norm."""
    at.equal("rwkv.hook_bonus", own[..., None] * at["rwkv.hook_v"])
    attention, wkv = at["rwkv.hook_effective_attn"], at["rwkv.hook_wkv"]
    at.equal("rwkv.hook_wkv", np.einsum("bhqk,bkhd->bqhd", attention, at["rwkv.hook_v"]))
    if np.triu(attention, 1).any():
        raise AssertionError(f"{at.prefix}rwkv.hook_effective_attn: reads what is to come")
    centred = wkv - wkv.mean(-1, keepdims=True)
    normed = centred / np.sqrt(wkv.var(-1, keepdims=True) + at.eps.group_norm)
    normed = normed * at.heads(at.att["ln_x.weight"]) + at.heads(at.att["ln_x.bias"]) + added
    gated = normed.reshape(at["rwkv.hook_gate"].shape) * at["rwkv.hook_gate"]
    at.equal("attn.hook_out", gated @ at.att["output.weight"].T)


def _check_channel_mix(at: _Layer) -> None:
    delta = at["mlp.hook_shift"] - at["mlp.hook_in"]
    mu = at.ffn["time_maa_k" if at.is_6 else "x_k"]
    at.equal("mlp.hook_pre", (at["mlp.hook_in"] + delta * mu) @ at.ffn["key.weight"].T)
    at.equal("mlp.hook_post", np.where(at["mlp.hook_pre"] > 0, at["mlp.hook_pre"] ** 2, 0))
    at.equal("mlp.hook_out", at["mlp.hook_post"] @ at.ffn["value.weight"].T)
    if not at.is_6:
        at.equal("hook_mlp_out", at["mlp.hook_out"])
        return
    read = at["mlp.hook_in"] + delta * at.ffn["time_maa_r"]
    at.equal("mlp.hook_gate", sigmoid(read @ at.ffn["receptance.weight"].T))
    at.equal("hook_mlp_out", at["mlp.hook_gate"] * at["mlp.hook_out"])


def _check_norm(
    w: Weights, name: str, hooks: Weights, prefix: str, x: Array, eps: float, reader: str
) -> None:
    scale = np.sqrt(x.var(-1, keepdims=True) + eps)
    _equal(f"{prefix}{name}.hook_scale", hooks[f"{prefix}{name}.hook_scale"], scale)
    normalized = hooks[f"{prefix}{name}.hook_normalized"]
    _equal(f"{prefix}{name}.hook_normalized", scale * normalized, x - x.mean(-1, keepdims=True))
    _equal(
        prefix + reader,
        hooks[prefix + reader],
        normalized * w[f"{name}.weight"] + w[f"{name}.bias"],
    )


def _layer_norm(w: Weights, name: str, x: Array, eps: float) -> Array:
    normalized = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    return normalized * w[f"{name}.weight"] + w[f"{name}.bias"]


def _before(x: Array) -> Array:
    """Return each position's predecessor along the second axis, zeros for the first."""
    return np.concatenate([np.zeros_like(x[:, :1]), x[:, :-1]], axis=1)


def _equal(name: str, actual: Array, expected: Array) -> None:
    error = relative_error(actual, expected)
    if not error <= IDENTITY_TOLERANCE:
        raise AssertionError(f"{name}: relative error {error:.1e}")
