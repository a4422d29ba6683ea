"""RWKV configs in each of the three layouts, and the defaults that they leave out.

Layouts are those of ``RWKV/v6-Finch-*-HF`` (RWKV-6) and of flash-linear-attention (RWKV-6 and 7).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from golden.rwkv.reference import Eps

Config = Mapping[str, Any]

FINCH_RANKS = {"mix": 6, "decay": 8}
"""Its class has these as constants, 32 and 64 or twice that; its config does not name them."""

# What the classes that write these configs add to one that leaves it out.
FINCH_DEFAULTS: dict[str, Any] = {
    "attention_hidden_size": None,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "head_size_divisor": 8,
    "intermediate_size": None,
    "layer_norm_epsilon": 1e-5,
    "rescale_every": 6,
    "tie_word_embeddings": False,
    "use_cache": True,
}
FLA_DEFAULTS: dict[str, Any] = {
    "attn": None,
    "attn_mode": "chunk",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "fuse_cross_entropy": True,
    "fuse_linear_cross_entropy": False,
    "fuse_norm": True,
    "hidden_act": "sqrelu",
    "initializer_range": 0.02,
    "intermediate_size": None,
    "max_position_embeddings": 2048,
    "norm_bias": True,
    "norm_eps": 1e-5,
    "norm_first": True,
    "tie_word_embeddings": False,
    "use_cache": True,
}
FLA_6_DEFAULTS = FLA_DEFAULTS | {"expand_v": 1.0, "hidden_ratio": 3.5, "use_l2warp": False}
FLA_7_DEFAULTS = FLA_DEFAULTS | {"hidden_ratio": 4, "use_l2warp": True}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Axis lengths of a model.

    Attributes
    ----------
    ranks : mapping
        Of the low-rank maps: ``mix`` and ``decay`` in RWKV-6; ``w``, ``a``, ``v``, ``g`` in 7.
    norm_first : bool
        Whether a norm comes before the first layer.
    """

    version: int
    d_model: int
    d_head: int
    d_mlp: int
    n_layers: int
    d_vocab: int
    ranks: Mapping[str, int]
    norm_first: bool


def sizes_of(config: Config) -> Sizes:
    """Return the sizes that a config of any of the three layouts asks for."""
    full = full_config(config)
    d_model, d_mlp = full["hidden_size"], full["intermediate_size"]
    if not is_fla(config):
        # Rounded down, here alone.
        d_mlp = d_mlp or int(3.5 * d_model) // 32 * 32
        d_head, ranks = full["num_attention_heads"], FINCH_RANKS
    else:
        is_6 = config["model_type"] == "rwkv6"
        ratio = full["hidden_ratio"] or (3.5 if is_6 else 4)
        d_mlp = d_mlp or -(-int(ratio * d_model) // 32) * 32
        if is_6:
            d_head = d_model // full["num_heads"]
            ranks = {"mix": full["proj_low_rank_dim"], "decay": full["gate_low_rank_dim"]}
        else:
            d_head = full["head_dim"]
            ranks = {
                name: full[f"{key}_low_rank_dim"]
                for name, key in {"w": "decay", "a": "a", "v": "v", "g": "gate"}.items()
            }
    return Sizes(
        version=int(config["model_type"].removeprefix("rwkv")),
        d_model=d_model,
        d_head=d_head,
        d_mlp=d_mlp,
        n_layers=full["num_hidden_layers"],
        d_vocab=full["vocab_size"],
        ranks=ranks,
        norm_first=full.get("norm_first", True),
    )


def eps_of(config: Config) -> Eps:
    """Return what a config's norms add to a variance."""
    full = full_config(config)
    if not is_fla(config):
        eps = full["layer_norm_epsilon"]
        return Eps(eps, eps * full["head_size_divisor"] ** 2)
    eps = full["norm_eps"]
    if config["model_type"] == "rwkv6":
        # What RWKV-6 is trained with; left to itself the class would take norm_eps.
        return Eps(eps, 64 * eps)
    return Eps(eps, full.get("group_norm_eps", full["head_dim"] * eps))


def full_config(config: Config) -> dict[str, Any]:
    """Return `config` as the class of its layout writes it: with every default, ``dtype`` new."""
    full = {"dtype" if key == "torch_dtype" else key: value for key, value in config.items()}
    if not is_fla(config):
        full = {**FINCH_DEFAULTS, "head_size": full["num_attention_heads"]} | full
        full["attention_hidden_size"] = full["attention_hidden_size"] or full["hidden_size"]
    elif config["model_type"] == "rwkv6":
        full = FLA_6_DEFAULTS | full
    else:
        full = FLA_7_DEFAULTS | full
        full.setdefault("num_heads", full["hidden_size"] // full["head_dim"])
        full.setdefault("value_dim", [full["hidden_size"]] * full["num_hidden_layers"])
    return full


def is_fla(config: Config) -> bool:
    """Whether this is a config of flash-linear-attention."""
    return "num_attention_heads" not in config
