"""Golden cases of ``phi`` and ``phi3``."""

from __future__ import annotations

from golden.cases.case import Case, sizes

_PHI = {
    "architectures": ["PhiForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 2,
    "hidden_act": "gelu_new",
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    "model_type": "phi",
    "resid_pdrop": 0.1,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
}
_PHI3 = {
    "architectures": ["Phi3ForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "embd_pdrop": 0.0,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "phi3",
    "pad_token_id": 2,
    "resid_pdrop": 0.0,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}


def _longrope(original: int, short: list[float], long: list[float]) -> dict[str, object]:
    return {
        "original_max_position_embeddings": original,
        "rope_scaling": {"type": "longrope", "short_factor": short, "long_factor": long},
        "sliding_window": 64,
    }


_SHORT = [1.0, 1.25, 1.5, 2.0]
_LONG = [1.125, 2.0, 4.0, 9.0]

PHI_CASES = (
    Case(
        name="phi",
        config=_PHI
        | sizes(3, None, 24, 20, d_vocab=45)
        | {"num_key_value_heads": None, "partial_rotary_factor": 0.5, "qk_layernorm": False},
        tokens=(1, 5),
        seed=301,
        covers="attention and MLP in parallel after one layer norm, biases everywhere and on the "
        "unembedding, half of each head rotated, multi-head attention",
    ),
    Case(
        name="phi-qk-norm",
        config=_PHI
        | sizes(3, 1, 24, 20, d_vocab=45)
        | {"partial_rotary_factor": 0.25, "qk_layernorm": True},
        tokens=(1, 7),
        seed=4302,
        covers="layer norms of queries and keys by head, multi-query attention 3/1, "
        "a quarter of each head rotated",
    ),
)

PHI3_CASES = (
    Case(
        name="phi3-window",
        config=_PHI3
        | sizes(4, 2, 24, 20, d_vocab=45)
        | {
            "original_max_position_embeddings": 64,
            "rope_scaling": None,
            "sliding_window": 3,
        },
        tokens=(1, 8),
        seed=303,
        covers="q, k and v in one projection, gate and up in another; grouped queries 4/2, "
        "sliding window 3",
    ),
    Case(
        name="phi3-longrope-short",
        config=_PHI3 | sizes(3, 1, 24, 20, d_vocab=45) | _longrope(16, _SHORT, _LONG),
        tokens=(1, 6),
        seed=304,
        covers='rope longrope, spelled {"type"}, prompt within the original length: short factors, '
        "attention factor all the same",
    ),
    Case(
        name="phi3-longrope-long",
        config=_PHI3 | sizes(3, 1, 24, 20, d_vocab=45) | _longrope(5, _SHORT, _LONG),
        tokens=(1, 6),
        seed=305,
        covers="rope longrope, prompt beyond the original length: long factors",
    ),
    Case(
        name="phi4-mini",
        config=_PHI3
        | sizes(4, 2, 32, 20, d_vocab=45)
        | _longrope(5, _SHORT[:3], _LONG[:3])
        | {"partial_rotary_factor": 0.75, "tie_word_embeddings": True},
        tokens=(1, 6),
        seed=306,
        covers="three quarters of each head rotated, with longrope beyond the original length; "
        "grouped queries 4/2, tied",
    ),
)
