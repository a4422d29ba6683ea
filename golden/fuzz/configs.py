"""Random configs of every family, spelled as on the Hub, for `golden.fuzz`.

Sizes are the unusual ones that golden cases leave out: odd head counts, groups of three or five,
widths without divisors, windows of one, prompts of one token, single layers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random
from typing import Any

from golden.fuzz.rwkv import CONFIGS as RWKV

Config = dict[str, Any]

ACTIVATIONS = ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "relu")


def random_config(family: str, rng: Random) -> Config:
    """Return a config of `family` that transformers accepts; of RWKV, one that its authors' does.

    Raises
    ------
    KeyError
        If there is no such family in `FAMILIES`.
    """
    return FAMILIES[family](rng) | {"model_type": family, "vocab_size": rng.randint(11, 71)}


def random_shape(rng: Random) -> tuple[int, int]:
    """Return ``(batch, pos)`` of a prompt."""
    # Not a single token: a lone score can be the small difference of large terms, of which
    # HuggingFace's own float32 keeps no more digits than ours (8.7e-6 off where this was met).
    return rng.randint(1, 3), rng.choice([4, 5, 6, 7, 9, 11])


def _sizes(rng: Random, *, head_dim: bool = False, divides: bool = True) -> Config:
    """Return sizes; with `head_dim` given and, unless it `divides`, any width of the stream."""
    n_kv_heads = rng.choice([1, 1, 2, 3])
    n_heads = n_kv_heads * rng.choice([1, 2, 3, 5])
    d_head = rng.choice([4, 6, 8, 10])
    d_model = n_heads * (rng.randint(2, 6) if head_dim else d_head)
    if not divides:
        d_model = rng.randint(9, 37)
    return {
        "hidden_size": d_model,
        "intermediate_size": rng.randint(5, 37),
        "max_position_embeddings": 64,
        "num_attention_heads": n_heads,
        "num_hidden_layers": rng.randint(1, 4),
        "num_key_value_heads": n_kv_heads,
        "tie_word_embeddings": rng.random() < 0.5,
    } | ({"head_dim": d_head} if head_dim else {})


def _flag(rng: Random) -> bool:
    return rng.random() < 0.5


def _window(rng: Random) -> int:
    return rng.choice([1, 2, 3, 4, 6, 20])


def _norm(rng: Random) -> float:
    return rng.choice([1e-5, 1e-6, 3e-4])


def _rope(rng: Random) -> Config:
    """Return ``rope_theta`` and ``rope_scaling`` of any kind that all heads wholly rotated take."""
    kind = rng.choice(["none", "linear", "dynamic", "llama3", "yarn"])
    factor = round(rng.uniform(1.5, 9.0), 3)
    scaling: Config | None = {
        "none": None,
        "linear": {"type": "linear", "factor": factor},
        "dynamic": {"rope_type": "dynamic", "factor": factor},
        "llama3": {
            "rope_type": "llama3",
            "factor": factor,
            "high_freq_factor": 4.0,
            "low_freq_factor": 1.0,
            "original_max_position_embeddings": rng.choice([8, 32, 64]),
        },
        "yarn": {
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": rng.choice([8, 32, 64]),
            "beta_fast": rng.choice([4, 32]),
        },
    }[kind]
    # Dynamic scaling acts on prompts beyond the model's context.
    n_ctx = rng.choice([4, 64]) if kind == "dynamic" else 512
    theta = rng.choice([100.0, 10000.0, 500000.0])
    return {"max_position_embeddings": n_ctx, "rope_scaling": scaling, "rope_theta": theta}


def _rms(rng: Random) -> Config:
    return {"hidden_act": rng.choice(ACTIVATIONS), "rms_norm_eps": _norm(rng)}


def _llama(rng: Random) -> Config:
    sizes = _sizes(rng, head_dim=_flag(rng))
    biases = {"attention_bias": _flag(rng), "mlp_bias": _flag(rng)}
    return sizes | _rms(rng) | _rope(rng) | biases


def _mistral(rng: Random) -> Config:
    window = {"sliding_window": rng.choice([None, _window(rng)])}
    return _sizes(rng, head_dim=True, divides=False) | _rms(rng) | _rope(rng) | window


def _layer_windows(rng: Random) -> Config:
    return {
        "max_window_layers": rng.randint(0, 3),
        "sliding_window": _window(rng),
        "use_sliding_window": _flag(rng),
    }


def _qwen2(rng: Random) -> Config:
    return _sizes(rng) | _rms(rng) | _rope(rng) | _layer_windows(rng)


def _qwen3(rng: Random) -> Config:
    sizes = _sizes(rng, head_dim=True, divides=False)
    bias = {"attention_bias": _flag(rng)}
    return sizes | _rms(rng) | _rope(rng) | _layer_windows(rng) | bias


def _olmo2(rng: Random) -> Config:
    bias = {"attention_bias": _flag(rng), "pad_token_id": 0}
    return _sizes(rng) | _rms(rng) | _rope(rng) | bias


def _gemma(rng: Random) -> Config:
    act = {"hidden_act": rng.choice(["gelu", "gelu_pytorch_tanh"])}
    bias = {"attention_bias": _flag(rng)}
    sizes = _sizes(rng, head_dim=True, divides=False)
    return sizes | _rms(rng) | _rope(rng) | act | bias


def _gemma2(rng: Random) -> Config:
    return (
        _sizes(rng, head_dim=True)
        | _rope(rng)
        | {
            "attention_bias": _flag(rng),
            "attn_logit_softcapping": rng.choice([None, 0.5, 2.0, 50.0]),
            "final_logit_softcapping": rng.choice([None, 0.25, 3.0, 30.0]),
            "hidden_activation": rng.choice(ACTIVATIONS),
            "query_pre_attn_scalar": rng.randint(1, 20),
            "rms_norm_eps": _norm(rng),
            "sliding_window": _window(rng),
        }
    )


def _gemma3(rng: Random) -> Config:
    scaling = {"factor": round(rng.uniform(1.5, 9.0), 3), "rope_type": "linear"}
    return (
        _gemma2(rng)
        | {"attn_logit_softcapping": None, "final_logit_softcapping": None}
        | {
            "max_position_embeddings": 64,
            "rope_local_base_freq": rng.choice([50.0, 10000.0]),
            "rope_scaling": rng.choice([None, scaling]),
            "sliding_window_pattern": rng.randint(1, 4),
        }
    )


def _partial(rng: Random, sizes: Config) -> float:
    # Whole pairs of a head must be rotated.
    d_head = sizes["hidden_size"] // sizes["num_attention_heads"]
    return rng.randint(1, d_head // 2) * 2 / d_head


def _phi(rng: Random) -> Config:
    sizes = _sizes(rng)
    return sizes | {
        "hidden_act": rng.choice(ACTIVATIONS),
        "layer_norm_eps": _norm(rng),
        "partial_rotary_factor": _partial(rng, sizes),
        "qk_layernorm": _flag(rng),
        "rope_theta": rng.choice([100.0, 10000.0]),
        "tie_word_embeddings": False,
    }


def _phi3(rng: Random) -> Config:
    sizes = _sizes(rng)
    partial = _partial(rng, sizes)
    n_pairs = int(sizes["hidden_size"] // sizes["num_attention_heads"] * partial) // 2
    long_rope: Config = {
        "original_max_position_embeddings": rng.choice([4, 16]),
        "rope_scaling": {
            "type": "longrope",
            "short_factor": [rng.randint(8, 16) / 8 for _ in range(n_pairs)],
            "long_factor": [rng.randint(8, 72) / 8 for _ in range(n_pairs)],
        },
    }
    return (
        sizes
        | _rms(rng)
        | (long_rope if _flag(rng) else {"rope_scaling": None})
        | {
            "pad_token_id": 0,
            "partial_rotary_factor": partial,
            "rope_theta": rng.choice([100.0, 10000.0]),
            "sliding_window": rng.choice([None, _window(rng)]),
        }
    )


def _starcoder2(rng: Random) -> Config:
    return (
        _sizes(rng)
        | _rope(rng)
        | {
            "hidden_act": rng.choice(ACTIVATIONS),
            "norm_epsilon": _norm(rng),
            "sliding_window": rng.choice([None, _window(rng)]),
            "use_bias": _flag(rng),
        }
    )


def _gpt2(rng: Random) -> Config:
    n_heads = rng.choice([1, 3, 5, 6])
    return {
        "activation_function": rng.choice(ACTIVATIONS),
        "layer_norm_epsilon": _norm(rng),
        "n_embd": n_heads * rng.randint(3, 7),
        "n_head": n_heads,
        "n_inner": rng.choice([None, rng.randint(5, 37)]),
        "n_layer": rng.randint(1, 4),
        "n_positions": rng.randint(11, 20),
        "scale_attn_by_inverse_layer_idx": _flag(rng),
        "scale_attn_weights": _flag(rng),
        "tie_word_embeddings": _flag(rng),
    }


def _gpt_neox(rng: Random) -> Config:
    sizes = _sizes(rng)
    del sizes["num_key_value_heads"]
    return sizes | {
        "attention_bias": _flag(rng),
        "hidden_act": rng.choice(ACTIVATIONS),
        "layer_norm_eps": _norm(rng),
        "rotary_emb_base": rng.choice([100, 10000]),
        "rotary_pct": _partial(rng, sizes),
        "use_parallel_residual": _flag(rng),
    }


def _mixtral(rng: Random) -> Config:
    n_experts = rng.randint(2, 7)
    return _mistral(rng) | {
        "num_experts_per_tok": rng.randint(1, n_experts),
        "num_local_experts": n_experts,
    }


def _qwen3_moe(rng: Random) -> Config:
    n_experts = rng.randint(2, 7)
    return (
        _sizes(rng, head_dim=True, divides=False)
        | _rms(rng)
        | _rope(rng)
        | {
            "attention_bias": _flag(rng),
            "decoder_sparse_step": rng.randint(1, 3),
            "mlp_only_layers": [layer for layer in range(4) if rng.random() < 0.25],
            "moe_intermediate_size": rng.randint(3, 15),
            "norm_topk_prob": _flag(rng),
            "num_experts": n_experts,
            "num_experts_per_tok": rng.randint(1, n_experts),
            "sliding_window": _window(rng),
            "use_sliding_window": _flag(rng),
        }
    )


FAMILIES: Mapping[str, Callable[[Random], Config]] = {
    "llama": _llama,
    "mistral": _mistral,
    "mixtral": _mixtral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
    "olmo2": _olmo2,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi": _phi,
    "phi3": _phi3,
    "starcoder2": _starcoder2,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    **RWKV,
}
"""By ``model_type``."""
