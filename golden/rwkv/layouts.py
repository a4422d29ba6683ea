"""The weights of an RWKV ``.pth`` file under the names and in the shapes of other checkpoints.

Layouts are those of ``RWKV/v6-Finch-*-HF`` (RWKV-6), which renames, and of flash-linear-attention
(RWKV-6 and 7), which transposes and joins as well.
"""

from __future__ import annotations

import numpy as np

from golden.rwkv.configs import Config, is_fla
from golden.rwkv.mixes import Array, Weights
from golden.rwkv.reference import is_rwkv6, under

FINCH = {
    "emb.": "embeddings.",
    ".ln0.": ".pre_ln.",
    ".att.": ".attention.",
    ".ffn.": ".feed_forward.",
}
FLA = {
    "blocks.": "layers.",
    "emb.": "embeddings.",
    "ln0.": "pre_norm.",
    "ln1.": "attn_norm.",
    "ln2.": "ffn_norm.",
    "ln_out.": "norm.",
}
MAPS = {
    "receptance.weight": "r_proj",
    "key.weight": "k_proj",
    "value.weight": "v_proj",
    "gate.weight": "g_proj",
}


def lay_out(weights: Weights, config: Config) -> dict[str, Array]:
    """Return the weights of a ``.pth`` file as the layout of `config` has them."""
    if not is_fla(config):
        return {_renamed(name, "rwkv.", FINCH): x for name, x in weights.items()}
    attention, ffn = (
        (_fla_attention_6, _fla_ffn_6) if is_rwkv6(weights) else (_fla_attention_7, dict)
    )
    laid_out: dict[str, Array] = {}
    for name, x in weights.items():
        if ".att." not in name and ".ffn." not in name:
            laid_out[_renamed(name, "model.", FLA)] = x
    for layer in range(config["num_hidden_layers"]):
        parts = {"att": ("attn", attention), "ffn": ("ffn", ffn)}
        for name, (module, of) in parts.items():
            for inner, x in of(under(weights, f"blocks.{layer}.{name}.")).items():
                laid_out[f"model.layers.{layer}.{module}.{inner}"] = x
    return laid_out


def _renamed(name: str, prefix: str, names: dict[str, str]) -> str:
    if name == "head.weight":
        return "head.weight" if names is FINCH else "lm_head.weight"
    for old, new in names.items():
        name = name.replace(old, new)
    return prefix + name


def _fla_attention_6(att: Weights) -> dict[str, Array]:
    # The five mixes are stored in another order, and all in one matrix.
    order = ["wkvrg".index(name) for name in "rwkvg"]
    down, up = att["time_maa_w1"], att["time_maa_w2"]
    d_model, rank = down.shape[0], up.shape[1]
    return {
        "x_proj.0.mu": att["time_maa_x"],
        "x_proj.0.linear.weight": down.T.reshape(5, rank, d_model)[order].reshape(-1, d_model),
        "x_proj.2.weight": np.concatenate([up[j].T for j in order], axis=1),
        "x_bias": np.stack([att[f"time_maa_{name}"] for name in "rwkvg"]),
        "w_proj.linear.lora.0.weight": att["time_decay_w1"].T,
        "w_proj.linear.lora.2.weight": att["time_decay_w2"].T,
        "w_proj.linear.lora.2.bias": att["time_decay"],
        "bonus": att["time_faaaa"],
        **{f"{new}.linear.weight": att[old] for old, new in MAPS.items()},
        **_fla_output(att),
    }


def _fla_ffn_6(ffn: Weights) -> dict[str, Array]:
    return {
        "key.mu": ffn["time_maa_k"],
        "key.linear.weight": ffn["key.weight"],
        "receptance.mu": ffn["time_maa_r"],
        "receptance.linear.weight": ffn["receptance.weight"],
        "value.weight": ffn["value.weight"],
    }


def _fla_attention_7(att: Weights) -> dict[str, Array]:
    laid_out = {f"x_{name}": att[f"x_{name}"].reshape(1, 1, -1) for name in "rwkvag"}
    laid_out |= {name: att[name] for name in ("k_k", "k_a", "r_k")}
    for name in "wavg":
        if f"{name}1" in att:
            laid_out[f"{name}_lora.lora.0.weight"] = att[f"{name}1"].T
            laid_out[f"{name}_lora.lora.2.weight"] = att[f"{name}2"].T
        if f"{name}0" in att:
            laid_out[f"{name}_lora.lora.2.bias"] = att[f"{name}0"]
    laid_out |= {f"{new}.weight": att[old] for old, new in MAPS.items() if old in att}
    return laid_out | _fla_output(att)


def _fla_output(att: Weights) -> dict[str, Array]:
    return {
        "g_norm.weight": att["ln_x.weight"],
        "g_norm.bias": att["ln_x.bias"],
        "o_proj.weight": att["output.weight"],
    }
