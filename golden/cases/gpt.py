"""Golden cases of ``gpt2``, ``gpt_neox`` and ``starcoder2``: layer norms and plain MLPs."""

from __future__ import annotations

from golden.cases.case import Case, sizes

_STARCODER2 = {
    "architectures": ["Starcoder2ForCausalLM"],
    "attention_dropout": 0.1,
    "bos_token_id": 0,
    "embedding_dropout": 0.1,
    "eos_token_id": 0,
    "hidden_act": "gelu_pytorch_tanh",
    "initializer_range": 0.018042,
    "mlp_type": "default",
    "model_type": "starcoder2",
    "norm_epsilon": 1e-5,
    "norm_type": "layer_norm",
    "residual_dropout": 0.1,
    "rope_theta": 100000,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_GPT2 = {
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 1,
    "embd_pdrop": 0.1,
    "eos_token_id": 1,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-5,
    "model_type": "gpt2",
    "n_ctx": 32,
    "n_embd": 18,
    "n_head": 3,
    "n_layer": 2,
    "n_positions": 32,
    "resid_pdrop": 0.1,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "vocab_size": 45,
}
_GPT_NEOX = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-5,
    "model_type": "gpt_neox",
    "rotary_emb_base": 10000,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "use_cache": True,
}

STARCODER2_CASES = (
    Case(
        name="starcoder2",
        config=_STARCODER2
        | sizes(6, 2, 24, 20, d_vocab=45)
        | {"sliding_window": 64, "use_bias": True},
        tokens=(1, 5),
        seed=1401,
        covers="layer norms, plain MLP with the tanh GELU, biases everywhere but on the "
        "unembedding, grouped queries 6/2, tied by default",
    ),
    Case(
        name="starcoder2-window",
        config=_STARCODER2
        | sizes(3, 1, 18, 20, d_vocab=45)
        | {"sliding_window": 3, "tie_word_embeddings": False, "use_bias": False},
        tokens=(1, 8),
        seed=402,
        covers="no biases but those of the norms, sliding window 3, untied",
    ),
)

GPT2_CASES = (
    Case(
        name="gpt2",
        config=_GPT2 | {"activation_function": "gelu_new"},
        tokens=(1, 5),
        seed=1403,
        covers="learned positions and no rotary, q, k and v in one projection stored [in, out], "
        "d_mlp four times d_model by default, tied by default",
    ),
    Case(
        name="gpt2-scaled",
        config=_GPT2
        | {
            "activation_function": "gelu",
            "n_inner": 20,
            "reorder_and_upcast_attn": False,
            "scale_attn_by_inverse_layer_idx": True,
            "scale_attn_weights": True,
            "tie_word_embeddings": False,
        },
        tokens=(1, 7),
        seed=6404,
        covers="scores of layer l divided by l + 1, n_inner given, activation gelu (erf), untied",
    ),
)

GPT_NEOX_CASES = (
    Case(
        name="gpt-neox-parallel",
        config=_GPT_NEOX
        | sizes(3, None, 24, 20, d_vocab=45)
        | {"hidden_act": "gelu", "rotary_pct": 0.25, "use_parallel_residual": True},
        tokens=(1, 5),
        seed=405,
        covers="attention and MLP in parallel, each after a layer norm of its own; q, k and v of "
        "each head together in one projection; a quarter of each head rotated",
    ),
    Case(
        name="gpt-neox-sequential",
        config=_GPT_NEOX
        | sizes(3, None, 18, 20, d_vocab=45)
        | {
            "attention_bias": False,
            "hidden_act": "gelu_new",
            "rotary_pct": 1.0,
            "use_parallel_residual": False,
        },
        tokens=(1, 7),
        seed=406,
        covers="attention before MLP, whole head rotated, no biases in attention, tanh GELU",
    ),
)
