"""Golden cases of ``gemma``, ``gemma2`` and ``gemma3_text``."""

from __future__ import annotations

from golden.cases.case import Case, sizes

_COMMON = {
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "initializer_range": 0.02,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-6,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_GEMMA2 = _COMMON | {
    "architectures": ["Gemma2ForCausalLM"],
    "cache_implementation": "hybrid",
    "hidden_act": "gelu_pytorch_tanh",
    "hidden_activation": "gelu_pytorch_tanh",
    "model_type": "gemma2",
    "rope_theta": 10000.0,
    "sliding_window": 3,
}

GEMMA_CASES = (
    Case(
        name="gemma",
        config=_COMMON
        | {
            "architectures": ["GemmaForCausalLM"],
            "hidden_act": "gelu",
            "model_type": "gemma",
            "rope_theta": 10000.0,
        }
        | sizes(3, 1, 18, 20, d_vocab=45)
        | {"head_dim": 8},
        tokens=(1, 7),
        seed=201,
        covers="embedding times sqrt(d_model), norm gain one plus weight, multi-query attention; "
        'hidden_act "gelu", which here means the tanh approximation; tied by default',
    ),
    Case(
        name="gemma2",
        config=_GEMMA2
        | sizes(4, 2, 12, 20, n_layers=3, d_vocab=45)
        | {
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 0.25,
            "head_dim": 6,
            "query_pre_attn_scalar": 3,
        },
        tokens=(1, 8),
        seed=202,
        covers="norms before and after attention and MLP, soft-caps of scores and logits, "
        "query_pre_attn_scalar not head_dim, window 3 in layers 0 and 2",
    ),
    Case(
        name="gemma2-nocap",
        config=_GEMMA2
        | sizes(3, 1, 18, 20, d_vocab=45)
        | {
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "head_dim": 8,
            "layer_types": ["full_attention", "sliding_attention"],
            "query_pre_attn_scalar": 5,
        },
        tokens=(1, 7),
        seed=203,
        covers="soft-caps null; layer_types given, windows where the default has none",
    ),
    Case(
        name="gemma3",
        config=_COMMON
        | {
            "architectures": ["Gemma3ForCausalLM"],
            "attn_logit_softcapping": None,
            "cache_implementation": "hybrid",
            "final_logit_softcapping": None,
            "hidden_activation": "gelu_pytorch_tanh",
            "model_type": "gemma3_text",
            "rope_local_base_freq": 100.0,
            "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
            "rope_theta": 5000.0,
            "sliding_window": 3,
            "sliding_window_pattern": 3,
        }
        | sizes(3, 1, 12, 20, n_layers=3, d_vocab=45)
        | {"head_dim": 8, "query_pre_attn_scalar": 5},
        tokens=(1, 7),
        seed=3204,
        covers="two windowed layers to one full; rope_local_base_freq in the windowed ones, "
        "rope_theta and linear scaling by 8 in the full one; norms of queries and keys",
    ),
)
