"""Golden cases of ``mistral``, ``qwen2``, ``qwen3`` and ``olmo2``: LLaMA with one thing changed."""

from __future__ import annotations

from golden.cases.case import Case, sizes

_COMMON = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_MISTRAL = _COMMON | {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "rms_norm_eps": 1e-5,
}
_QWEN2 = _COMMON | {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "rms_norm_eps": 1e-6,
    "rope_theta": 1000000.0,
}
_QWEN3 = _COMMON | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 1000000.0,
}

MISTRAL_CASES = (
    Case(
        name="mistral-window",
        config=_MISTRAL
        | sizes(6, 3, 14, 22, d_vocab=45)
        | {"head_dim": 4, "rope_theta": 10000.0, "sliding_window": 3},
        tokens=(1, 8),
        seed=101,
        covers="sliding window 3 in every layer, shorter than the prompt; "
        "grouped queries 6/3, explicit head_dim",
    ),
    Case(
        name="mistral-nemo",
        config=_MISTRAL
        | sizes(3, 1, 18, 22, d_vocab=45)
        | {"head_dim": 8, "rope_theta": 1000000.0, "sliding_window": None},
        tokens=(1, 7),
        seed=102,
        covers="sliding_window null (absent would mean 4096); head_dim not d_model / n_heads",
    ),
)

QWEN2_CASES = (
    Case(
        name="qwen2",
        config=_QWEN2
        | sizes(6, 2, 24, 20, d_vocab=45)
        | {
            "max_window_layers": 1,
            "sliding_window": 3,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
        },
        tokens=(1, 5),
        seed=103,
        covers="biases on q, k, v and not on o; sliding_window given but switched off; tied",
    ),
    Case(
        name="qwen2-window",
        config=_QWEN2
        | sizes(3, 1, 12, 20, n_layers=3, d_vocab=45)
        | {"max_window_layers": 1, "sliding_window": 3, "use_sliding_window": True},
        tokens=(1, 7),
        seed=104,
        covers="sliding window 3 from layer max_window_layers = 1 on",
    ),
)

QWEN3_CASES = (
    Case(
        name="qwen3",
        config=_QWEN3
        | sizes(6, 2, 14, 20, d_vocab=45)
        | {
            "attention_bias": False,
            "head_dim": 4,
            "max_window_layers": 2,
            "sliding_window": None,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
        },
        tokens=(1, 7),
        seed=2105,
        covers="norms of queries and keys by head; head_dim not d_model / n_heads; tied",
    ),
    Case(
        name="qwen3-window",
        config=_QWEN3
        | sizes(3, 1, 18, 20, d_vocab=45)
        | {
            "attention_bias": True,
            "head_dim": 8,
            "max_window_layers": 1,
            "sliding_window": 4,
            "use_sliding_window": True,
        },
        tokens=(1, 7),
        seed=4106,
        covers="biases on q, k, v and o; sliding window 4 in the second layer only",
    ),
)

OLMO2_CASES = (
    Case(
        name="olmo2",
        config=_COMMON
        | {
            "architectures": ["Olmo2ForCausalLM"],
            "attention_bias": False,
            "model_type": "olmo2",
            "pad_token_id": 0,
            "rms_norm_eps": 1e-6,
            "rope_scaling": None,
            "rope_theta": 500000,
        }
        | sizes(6, 3, 24, 20, d_vocab=45),
        tokens=(1, 5),
        seed=3107,
        covers="norms of what attention and the MLP write, none of what they read; "
        "norms of all queries and all keys at once; grouped queries 6/3",
    ),
)
