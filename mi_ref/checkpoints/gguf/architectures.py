"""GGUF's architectures and the HuggingFace configs that describe the same models.

A GGUF file names sizes, but neither activation functions nor kinds of norm: those belong to the
architecture, and stand here.

Source: llama.cpp ``convert_hf_to_gguf.py`` (``set_gguf_parameters`` of each model) and
``llama-model.cpp``; transformers 5.23.0 for the keys of configs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What GGUF's name of an architecture means."""

    model_type: str
    """HuggingFace's name, which is a family's."""
    class_name: str
    """Of its causal language model in transformers."""
    keys: Mapping[str, str]
    """Metadata key below the architecture's name to key of ``config.json``."""
    implied: Mapping[str, Any]
    """Keys of ``config.json`` whose value the format leaves out."""
    tensors: Mapping[str, str]
    """Keys of ``config.json`` that say whether the first block has a tensor, by its name there."""
    theta: str | None = "rope_theta"
    """Key of the rotary base; None where positions are learned."""
    partial: str | None = None
    """Key of the part of a head that turns; None if all of it must."""
    rotary_pairs: bool = False
    unit_offset: bool = False
    said: tuple[str, ...] = field(default=())
    """What else is inferred, in sentences."""


_SIZES = {
    "vocab_size": "vocab_size",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "block_count": "num_hidden_layers",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
}
_HEADS = ("attention.head_count_kv", "attention.key_length")
_RMS = {**_SIZES, "attention.layer_norm_rms_epsilon": "rms_norm_eps"}
_WINDOW = {"attention.sliding_window": "sliding_window"}
_EXPERTS = {"expert_used_count": "num_experts_per_tok"}
_BIAS = {"attention_bias": "attn_q.bias"}

_LLAMA = Architecture(
    model_type="llama",
    class_name="LlamaForCausalLM",
    keys=_RMS,
    implied={"hidden_act": "silu"},
    tensors={**_BIAS, "mlp_bias": "ffn_up.bias"},
    rotary_pairs=True,
    said=("no sliding window: files made from Mistral 0.1, which has one, leave it out",),
)
_MISTRAL = replace(
    _LLAMA,
    model_type="mistral",
    class_name="MistralForCausalLM",
    keys={**_RMS, **_WINDOW},
    tensors={},
    said=(),
)
_MIXTRAL = replace(
    _MISTRAL,
    model_type="mixtral",
    class_name="MixtralForCausalLM",
    keys={**_RMS, **_WINDOW, **_EXPERTS, "expert_count": "num_local_experts"},
    implied={"hidden_act": "silu", "sliding_window": None},
)
_QWEN2 = Architecture(
    model_type="qwen2",
    class_name="Qwen2ForCausalLM",
    keys=_RMS,
    implied={"hidden_act": "silu", "use_sliding_window": False},
    tensors={},
)
_QWEN3 = replace(_QWEN2, model_type="qwen3", class_name="Qwen3ForCausalLM", tensors=_BIAS)
_QWEN3_MOE = replace(
    _QWEN3,
    model_type="qwen3_moe",
    class_name="Qwen3MoeForCausalLM",
    keys={
        **_RMS,
        **_EXPERTS,
        "expert_count": "num_experts",
        "expert_feed_forward_length": "moe_intermediate_size",
        "expert_weights_norm": "norm_topk_prob",
    },
    implied={
        **_QWEN2.implied, "norm_topk_prob": True, "decoder_sparse_step": 1, "mlp_only_layers": [],
    },
)  # fmt: skip
_GEMMA = Architecture(
    model_type="gemma",
    class_name="GemmaForCausalLM",
    keys=_RMS,
    implied={"hidden_act": "gelu_pytorch_tanh"},
    tensors=_BIAS,
    unit_offset=True,
    said=("the embedding is multiplied by the root of its width",),
)
_GEMMA2 = replace(
    _GEMMA,
    model_type="gemma2",
    class_name="Gemma2ForCausalLM",
    implied={"hidden_activation": "gelu_pytorch_tanh"},
)
_GEMMA3 = replace(_GEMMA2, model_type="gemma3_text", class_name="Gemma3ForCausalLM")
_PHI3 = Architecture(
    model_type="phi3",
    class_name="Phi3ForCausalLM",
    keys={**_RMS, **_WINDOW},
    implied={"hidden_act": "silu", "sliding_window": None},
    tensors={},
    partial="partial_rotary_factor",
)
_PHI2 = Architecture(
    model_type="phi",
    class_name="PhiForCausalLM",
    keys={**_SIZES, "attention.layer_norm_epsilon": "layer_norm_eps"},
    implied={"hidden_act": "gelu_new"},
    tensors={"qk_layernorm": "attn_q_norm.weight"},
    partial="partial_rotary_factor",
)
_STARCODER2 = Architecture(
    model_type="starcoder2",
    class_name="Starcoder2ForCausalLM",
    keys={**_SIZES, **_WINDOW, "attention.layer_norm_epsilon": "norm_epsilon"},
    implied={"hidden_act": "gelu_pytorch_tanh", "sliding_window": None},
    tensors={"use_bias": "attn_q.bias"},
)
_OLMO2 = Architecture(
    model_type="olmo2",
    class_name="Olmo2ForCausalLM",
    keys=_RMS,
    implied={"hidden_act": "silu"},
    tensors=_BIAS,
)
_GPT2 = Architecture(
    model_type="gpt2",
    class_name="GPT2LMHeadModel",
    keys={
        "vocab_size": "vocab_size",
        "context_length": "n_positions",
        "embedding_length": "n_embd",
        "block_count": "n_layer",
        "feed_forward_length": "n_inner",
        "attention.head_count": "n_head",
        "attention.layer_norm_epsilon": "layer_norm_epsilon",
    },
    implied={"activation_function": "gelu_new"},
    tensors={},
    theta=None,
    said=("scores are divided by the root of the width of a head",),
)
_GPT_NEOX = Architecture(
    model_type="gpt_neox",
    class_name="GPTNeoXForCausalLM",
    keys={
        **{key: name for key, name in _SIZES.items() if key not in _HEADS},
        "attention.layer_norm_epsilon": "layer_norm_eps",
        "use_parallel_residual": "use_parallel_residual",
    },
    implied={"hidden_act": "gelu"},
    tensors={"attention_bias": "attn_qkv.bias"},
    theta="rotary_emb_base",
    partial="rotary_pct",
)

ARCHITECTURES = {
    "llama": _LLAMA,
    "mistral": _MISTRAL,
    "qwen2": _QWEN2,
    "qwen3": _QWEN3,
    "qwen3moe": _QWEN3_MOE,
    "gemma": _GEMMA,
    "gemma2": _GEMMA2,
    "gemma3": _GEMMA3,
    "phi2": _PHI2,
    "phi3": _PHI3,
    "starcoder2": _STARCODER2,
    "olmo2": _OLMO2,
    "gpt2": _GPT2,
    "gptneox": _GPT_NEOX,
}
"""Every architecture that can be read."""


def llama_like(*, experts: bool, window: bool) -> Architecture:
    """Return what ``llama`` means in a file: Mistral and Mixtral are stored under that name too."""
    if experts:
        return _MIXTRAL
    return _MISTRAL if window else _LLAMA
