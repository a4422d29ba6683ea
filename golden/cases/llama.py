"""Golden cases of ``llama``."""

from __future__ import annotations

from typing import Any

from golden.cases.case import Case, sizes

_LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_LLAMA1 = _LLAMA | {"rms_norm_eps": 1e-6, "pad_token_id": 0, "max_sequence_length": 64}
_LLAMA2 = _LLAMA | {"pretraining_tp": 1, "rope_scaling": None}
_LLAMA3 = _LLAMA2 | {"attention_bias": False, "attention_dropout": 0.0, "rope_theta": 10000.0}

_SMALL = sizes(2, 1, 16, 24)
_GROUPED = sizes(4, 2, 24, 20)


def _yarn(name: str, seed: int, covers: str, n_ctx: int = 4096, **scaling: Any) -> Case:
    # Six frequencies, of which some must lie on each of the ramp's three parts.
    rope = {"rope_type": "yarn"} | scaling
    config = _LLAMA3 | sizes(2, 1, 16, 20, n_ctx) | {"head_dim": 12, "rope_scaling": rope}
    return Case(name=name, config=config, tokens=(1, 7), seed=seed, covers=covers)


LLAMA_CASES = (
    Case(
        name="llama1",
        config=_LLAMA1 | sizes(3, None, 18, 22),
        tokens=(1, 7),
        seed=1,
        covers="multi-head attention, eps 1e-6, untied; "
        "no num_key_value_heads, rope_theta, rope_scaling or bias keys",
    ),
    Case(
        name="llama2",
        config=_LLAMA2 | _GROUPED,
        tokens=(2, 5),
        seed=2,
        covers="grouped queries 4/2, eps 1e-5, two sequences; rope_scaling null, no rope_theta",
    ),
    Case(
        name="llama3",
        config=_LLAMA3 | sizes(3, 1, 18, 22) | {"rope_theta": 500000.0, "eos_token_id": [2, 3]},
        tokens=(1, 7),
        seed=3,
        covers="multi-query attention 3/1, rope_theta 500000",
    ),
    Case(
        name="llama3.1-rope",
        config=_LLAMA3
        | sizes(2, 1, 20, 24, 512)
        | {
            "head_dim": 16,
            "mlp_bias": False,
            "rope_scaling": {
                "factor": 8.0,
                "high_freq_factor": 4.0,
                "low_freq_factor": 1.0,
                "original_max_position_embeddings": 64,
                "rope_type": "llama3",
            },
        },
        tokens=(1, 7),
        seed=4,
        covers="rope_type llama3, frequencies in all three regimes: kept, smoothed, divided",
    ),
    Case(
        name="llama-linear",
        config=_LLAMA3
        | _SMALL
        | {
            "hidden_act": "gelu_pytorch_tanh",
            "rope_scaling": {"type": "linear", "factor": 4.0},
        },
        tokens=(1, 7),
        seed=5,
        covers='rope linear, factor 4, spelled {"type"}; activation gelu_pytorch_tanh',
    ),
    Case(
        name="llama-dynamic-beyond",
        config=_LLAMA3
        | _SMALL
        | {"max_position_embeddings": 6, "rope_scaling": {"type": "dynamic", "factor": 3.0}},
        tokens=(1, 9),
        seed=6,
        covers="rope dynamic, prompt longer than max_position_embeddings: base grows with length",
    ),
    Case(
        name="llama-dynamic-within",
        config=_LLAMA3 | _SMALL | {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        tokens=(1, 7),
        seed=7,
        covers="rope dynamic, prompt within max_position_embeddings: as without scaling",
    ),
    _yarn(
        "llama-yarn",
        8,
        "rope yarn, attention factor from the factor, default betas",
        factor=4.0,
        original_max_position_embeddings=1024,
    ),
    _yarn(
        "llama-yarn-mscale",
        9,
        'rope yarn, attention factor from mscale and mscale_all_dim; both "type" and "rope_type"',
        type="yarn",
        factor=4.0,
        original_max_position_embeddings=1024,
        mscale=1.5,
        mscale_all_dim=0.5,
    ),
    _yarn(
        "llama-yarn-attention-factor",
        10,
        "rope yarn, explicit attention_factor; original length absent (= max_position_embeddings)",
        n_ctx=1024,
        factor=4.0,
        attention_factor=1.25,
    ),
    _yarn(
        "llama-yarn-beta",
        11,
        "rope yarn, beta_fast 8 and beta_slow 2; factor null (= max / original length)",
        n_ctx=2048,
        factor=None,
        original_max_position_embeddings=512,
        beta_fast=8,
        beta_slow=2,
    ),
    _yarn(
        "llama-yarn-no-truncate",
        16,
        "rope yarn, ramp ends not rounded to whole frequencies",
        factor=4.0,
        original_max_position_embeddings=1024,
        truncate=False,
    ),
    Case(
        name="llama-head-dim",
        config=_LLAMA3 | sizes(4, 2, 16, 20) | {"head_dim": 6},
        tokens=(1, 7),
        seed=13,
        covers="explicit head_dim, n_heads * d_head != d_model",
    ),
    Case(
        name="llama-biases",
        config=_LLAMA3
        | _GROUPED
        | {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"},
        tokens=(1, 5),
        seed=14,
        covers="attention_bias and mlp_bias, activation gelu (erf)",
    ),
    Case(
        name="llama-tied",
        config=_LLAMA3 | _SMALL | {"tie_word_embeddings": True, "head_dim": None},
        tokens=(1, 7),
        seed=15,
        covers="tie_word_embeddings, file without lm_head.weight; head_dim null",
    ),
)
