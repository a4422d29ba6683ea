"""Where each model type of transformers computes what the hook points name.

A family gives its modules by path; the names and the order of hooks are defined once, here, for all
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

ORDER = (
    "hook_resid_pre",
    *("ln1.hook_scale", "ln1.hook_normalized"),
    *(f"attn.hook_{name}" for name in ("in", "q", "k", "v")),
    *("attn.q_norm.hook_scale", "attn.q_norm.hook_normalized"),
    *("attn.k_norm.hook_scale", "attn.k_norm.hook_normalized"),
    *(f"attn.hook_{name}" for name in ("rot_q", "rot_k")),
    *(f"attn.hook_{name}" for name in ("attn_scores", "pattern", "z", "result", "out")),
    *("ln1_post.hook_scale", "ln1_post.hook_normalized"),
    *("hook_attn_out", "hook_resid_mid"),
    *("ln2.hook_scale", "ln2.hook_normalized"),
    *(f"mlp.hook_{name}" for name in ("in", "router_logits", "expert_weights")),
    *(f"mlp.hook_{name}" for name in ("pre", "pre_linear", "post", "out")),
    *("ln2_post.hook_scale", "ln2_post.hook_normalized"),
    *("hook_mlp_out", "hook_resid_post"),
)
"""A block's hooks as they come in the forward pass; no block has all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The modules of one block, by their paths below it.

    Parameters
    ----------
    norms : Mapping
        {norm as hooks spell it: module}. One before attention is "ln1", one of what attention
        writes "ln1_post", "ln2" and "ln2_post" likewise for the MLP.
    qk_norm : str or None
        What the norms of queries and keys see: ``[batch, pos, head, d_head]`` ("heads"),
        ``[batch, head, pos, d_head]`` ("heads first") or all heads as one vector ("whole").
    attn : Mapping
        "self", "o", and either "q", "k" and "v" or one "qkv" that holds them all.
    qkv_by_head : bool
        Whether a fused "qkv" has q, k and v of each head together, or those of all heads.
    mlp : Mapping
        "self", and of an MLP "pre" or "pre" and "pre_linear" or one "gate_up" that holds both, and
        "out"; of a mixture of experts "router" and "experts".
    parallel : bool
        Whether the MLP reads the same residual stream as attention.
    """

    norms: Mapping[str, str]
    qk_norm: Literal["heads", "heads first", "whole"] | None
    attn: Mapping[str, str]
    qkv_by_head: bool
    mlp: Mapping[str, str]
    parallel: bool

    def sites(self) -> dict[str, tuple[str, Literal["in", "out"]]]:
        """Return {hook: (module, which side of it)} for every hook that one module shows."""
        attn, mlp, norms = self.attn, self.mlp, self.norms
        sites: dict[str, tuple[str, Literal["in", "out"]]] = {
            "hook_resid_pre": ("", "in"),
            "attn.hook_in": (attn["self"], "in"),
            "attn.hook_out": (attn["o"], "out"),
            "hook_attn_out": (norms.get("ln1_post", attn["self"]), "out"),
            "mlp.hook_in": (mlp["self"], "in"),
            "mlp.hook_out": (mlp["self"], "out"),
            "hook_mlp_out": (norms.get("ln2_post", mlp["self"]), "out"),
            "hook_resid_post": ("", "out"),
        }
        if not self.parallel:
            sites["hook_resid_mid"] = (norms.get("ln2", mlp["self"]), "in")
        for name in ("pre", "pre_linear"):
            if name in mlp:
                sites[f"mlp.hook_{name}"] = (mlp[name], "out")
        if "out" in mlp:
            sites["mlp.hook_post"] = (mlp["out"], "in")
        return sites


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The modules of a model type.

    Parameters
    ----------
    embed, layers, ln_final : str
        Paths below the model.
    pos_embed : str or None
        The embedding of positions, if they are learned.
    rotary : str or None
        The module that holds the rotary frequencies.
    unit_offset : bool
        Whether a norm's gain is one plus its weight.
    block : callable
        The module of a block to its `Block`.
    """

    embed: str
    pos_embed: str | None
    layers: str
    ln_final: str
    rotary: str | None
    unit_offset: bool
    block: Callable[[Any], Block]


_PRE_NORMS = {"ln1": "input_layernorm", "ln2": "post_attention_layernorm"}
_QK_NORMS = {"attn.q_norm": "self_attn.q_norm", "attn.k_norm": "self_attn.k_norm"}
_SANDWICH = {
    "ln1": "input_layernorm",
    "ln1_post": "post_attention_layernorm",
    "ln2": "pre_feedforward_layernorm",
    "ln2_post": "post_feedforward_layernorm",
}
_POST_NORMS = {"ln1_post": "post_attention_layernorm", "ln2_post": "post_feedforward_layernorm"}
_EXPERTS = {"self": "mlp", "router": "mlp.gate", "experts": "mlp.experts"}

_LLAMA = Block(
    norms=_PRE_NORMS,
    qk_norm=None,
    attn={"self": "self_attn"} | {name: f"self_attn.{name}_proj" for name in "qkvo"},
    qkv_by_head=False,
    mlp={
        "self": "mlp",
        "pre": "mlp.gate_proj",
        "pre_linear": "mlp.up_proj",
        "out": "mlp.down_proj",
    },
    parallel=False,
)
_PHI3 = replace(
    _LLAMA,
    attn={"self": "self_attn", "qkv": "self_attn.qkv_proj", "o": "self_attn.o_proj"},
    mlp={"self": "mlp", "gate_up": "mlp.gate_up_proj", "out": "mlp.down_proj"},
)
_STARCODER2 = replace(_LLAMA, mlp={"self": "mlp", "pre": "mlp.c_fc", "out": "mlp.c_proj"})
_QWEN3 = replace(_LLAMA, norms=_PRE_NORMS | _QK_NORMS, qk_norm="heads")
_GPT2 = Block(
    norms={"ln1": "ln_1", "ln2": "ln_2"},
    qk_norm=None,
    attn={"self": "attn", "qkv": "attn.c_attn", "o": "attn.c_proj"},
    qkv_by_head=False,
    mlp={"self": "mlp", "pre": "mlp.c_fc", "out": "mlp.c_proj"},
    parallel=False,
)


def _gpt_neox(block: Any) -> Block:
    return Block(
        norms=_PRE_NORMS,
        qk_norm=None,
        attn={"self": "attention", "qkv": "attention.query_key_value", "o": "attention.dense"},
        qkv_by_head=True,
        mlp={"self": "mlp", "pre": "mlp.dense_h_to_4h", "out": "mlp.dense_4h_to_h"},
        parallel=block.use_parallel_residual,
    )


def _phi(block: Any) -> Block:
    normed = block.self_attn.qk_layernorm
    qk_norms = {f"attn.{name}_norm": f"self_attn.{name}_layernorm" for name in "qk"}
    return Block(
        norms={"ln1": "input_layernorm"} | (qk_norms if normed else {}),
        qk_norm="heads first" if normed else None,
        attn={**_LLAMA.attn, "o": "self_attn.dense"},
        qkv_by_head=False,
        mlp={"self": "mlp", "pre": "mlp.fc1", "out": "mlp.fc2"},
        parallel=True,
    )


def _qwen3_moe(block: Any) -> Block:
    return replace(_QWEN3, mlp=_EXPERTS) if hasattr(block.mlp, "experts") else _QWEN3


def _family(block: Block | Callable[[Any], Block], **differences: Any) -> Family:
    paths: dict[str, Any] = {
        "embed": "model.embed_tokens",
        "pos_embed": None,
        "layers": "model.layers",
        "ln_final": "model.norm",
        "rotary": "model.rotary_emb",
        "unit_offset": False,
    }
    return Family(
        block=(lambda _: block) if isinstance(block, Block) else block, **paths | differences
    )


FAMILIES = {
    "llama": _family(_LLAMA),
    "mistral": _family(_LLAMA),
    "mixtral": _family(replace(_LLAMA, mlp=_EXPERTS)),
    "qwen2": _family(_LLAMA),
    "qwen3": _family(_QWEN3),
    "qwen3_moe": _family(_qwen3_moe),
    "olmo2": _family(replace(_LLAMA, norms=_POST_NORMS | _QK_NORMS, qk_norm="whole")),
    "gemma": _family(_LLAMA, unit_offset=True),
    "gemma2": _family(replace(_LLAMA, norms=_SANDWICH), unit_offset=True),
    "gemma3_text": _family(
        replace(_LLAMA, norms=_SANDWICH | _QK_NORMS, qk_norm="heads first"), unit_offset=True
    ),
    "phi": _family(_phi, ln_final="model.final_layernorm"),
    "phi3": _family(_PHI3),
    "starcoder2": _family(_STARCODER2),
    "gpt2": _family(
        _GPT2,
        embed="transformer.wte",
        pos_embed="transformer.wpe",
        layers="transformer.h",
        ln_final="transformer.ln_f",
        rotary=None,
    ),
    "gpt_neox": _family(
        _gpt_neox,
        embed="gpt_neox.embed_in",
        layers="gpt_neox.layers",
        ln_final="gpt_neox.final_layer_norm",
        rotary="gpt_neox.rotary_emb",
    ),
}
"""By ``model_type``."""
