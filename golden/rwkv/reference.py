"""The forward pass of RWKV-6 and RWKV-7 that the golden files record, one token after the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from golden.rwkv.mixes import (
    Array,
    LayerState,
    Tap,
    Weights,
    channel_mix_6,
    channel_mix_7,
    normalize,
    time_mix_6,
    time_mix_7,
)


@dataclass(frozen=True, slots=True)
class Eps:
    """The epsilons of the norms."""

    layer_norm: float
    group_norm: float


@dataclass(frozen=True, slots=True)
class Forward:
    """The results of a batch of prompts.

    Attributes
    ----------
    hooks : dict
        ``[batch, pos, ...]`` at every hook point, in forward order.
    states : dict
        ``{layer}.x``, ``{layer}.S`` and ``{layer}.x_channel`` after the last token: the attributes
        of `LayerState` with batch in front.
    """

    hooks: dict[str, Array]
    states: dict[str, Array]


def forward(weights: Weights, tokens: list[list[int]], eps: Eps) -> Forward:
    """Run each prompt from an empty state.

    Parameters
    ----------
    weights : mapping
        By the names of a ``.pth`` file; they say which version it is. Without
        ``blocks.0.ln0.weight`` the embedding goes into the first layer as it is.
    tokens : list of list of int
        ``[batch, pos]``
    eps : Eps
        Of the norms.

    Raises
    ------
    AssertionError
        If the effective attention times the values is not what the recurrence gives.
    """
    rows = [_prompt(weights, prompt, eps) for prompt in tokens]
    hooks = {name: np.stack([taps[name] for taps, _ in rows]) for name in rows[0][0]}
    states = {
        f"{layer}.{name}": np.stack([getattr(layers[layer], name) for _, layers in rows])
        for layer in range(len(rows[0][1]))
        for name in ("x", "S", "x_channel")
    }
    return Forward(hooks, states)


def is_rwkv6(weights: Weights) -> bool:
    """Whether these are weights of RWKV-6, not of RWKV-7."""
    return "blocks.0.att.time_faaaa" in weights


def under(w: Weights, prefix: str) -> Weights:
    """Return the weights below `prefix`, vectors flat; the files have them as [1, 1, d_model]."""
    return {
        name.removeprefix(prefix): x.reshape(-1) if x.shape[:-1] == (1, 1) else x
        for name, x in w.items()
        if name.startswith(prefix)
    }


def _prompt(w: Weights, tokens: list[int], eps: Eps) -> tuple[dict[str, Array], list[LayerState]]:
    d_model = w["emb.weight"].shape[1]
    n_heads, d_head = w["blocks.0.att.time_faaaa" if is_rwkv6(w) else "blocks.0.att.r_k"].shape
    n_layers = 1 + max(int(name.split(".")[1]) for name in w if name.startswith("blocks."))
    layers = [
        LayerState(np.zeros(d_model), np.zeros((n_heads, d_head, d_head)), np.zeros(d_model))
        for _ in range(n_layers)
    ]
    taps: dict[str, list[Array]] = {}

    def tap(name: str, x: Array) -> None:
        taps.setdefault(name, []).append(x.copy())

    for token in tokens:
        _token(w, token, layers, eps, tap)
    return {name: _stack(name, rows) for name, rows in taps.items()}, layers


def _token(w: Weights, token: int, layers: list[LayerState], eps: Eps, tap: Tap) -> None:
    x = w["emb.weight"][token]
    tap("hook_embed", x)
    if "blocks.0.ln0.weight" in w:
        _, normalized = normalize(x, eps.layer_norm)
        x = normalized * w["blocks.0.ln0.weight"] + w["blocks.0.ln0.bias"]
    v_first: list[Array] = []
    for layer, state in enumerate(layers):
        x = _block(w, layer, x, state, v_first, eps, tap)
    x = _layer_norm(w, "ln_out", x, eps, tap, "ln_final")
    tap("unembed.hook_in", x)
    tap("unembed.hook_out", w["head.weight"] @ x)


def _block(
    w: Weights, layer: int, x: Array, state: LayerState, v_first: list[Array], eps: Eps, tap: Tap
) -> Array:
    block, att, ffn = (under(w, f"blocks.{layer}.{part}") for part in ("", "att.", "ffn."))
    time_mix, channel_mix = (
        (time_mix_6, channel_mix_6) if is_rwkv6(w) else (time_mix_7, channel_mix_7)
    )

    def here(name: str, x: Array) -> None:
        tap(f"blocks.{layer}.{name}", x)

    here("hook_resid_pre", x)
    read = _layer_norm(block, "ln1", x, eps, here)
    written = time_mix(att, read, state, v_first, eps.group_norm, here)
    here("attn.hook_out", written)
    here("hook_attn_out", written)
    x = x + written
    here("hook_resid_mid", x)
    read = _layer_norm(block, "ln2", x, eps, here)
    written = channel_mix(ffn, read, state, here)
    here("hook_mlp_out", written)
    x = x + written
    here("hook_resid_post", x)
    return x


def _layer_norm(w: Weights, name: str, x: Array, eps: Eps, tap: Tap, hooks: str = "") -> Array:
    scale, normalized = normalize(x, eps.layer_norm)
    tap(f"{hooks or name}.hook_scale", scale)
    tap(f"{hooks or name}.hook_normalized", normalized)
    return normalized * w[f"{name}.weight"] + w[f"{name}.bias"]


def _stack(name: str, rows: list[Array]) -> Array:
    if not name.endswith("effective_attn"):
        return np.stack(rows)
    # A token sees only those before it: [head, key_pos so far] becomes [head, query_pos, key_pos].
    widened = [np.pad(row, ((0, 0), (0, len(rows) - row.shape[1]))) for row in rows]
    return np.stack(widened, axis=1)
