"""Golden cases of the mixtures of experts: ``mixtral`` and ``qwen3_moe``."""

from __future__ import annotations

from golden.cases.case import Case, sizes

_COMMON = {
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "output_router_logits": False,
    "rope_theta": 1000000.0,
    "router_aux_loss_coef": 0.001,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
}
_QWEN3_MOE = _COMMON | {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "head_dim": 8,
    "max_window_layers": 2,
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 10,
    "num_experts": 5,
    "num_experts_per_tok": 2,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "sliding_window": None,
    "use_sliding_window": False,
}

EXPERT_CASES = (
    Case(
        name="mixtral",
        config=_COMMON
        | {
            "architectures": ["MixtralForCausalLM"],
            "model_type": "mixtral",
            "num_experts_per_tok": 2,
            "num_local_experts": 4,
            "rms_norm_eps": 1e-5,
            "sliding_window": None,
        }
        | sizes(3, 1, 18, 20, d_vocab=45),
        tokens=(2, 5),
        seed=501,
        covers="2 of 4 experts for each token, their weights made to sum to one; two sequences",
    ),
    Case(
        name="qwen3-moe",
        config=_QWEN3_MOE
        | sizes(3, 1, 12, 20, n_layers=3, d_vocab=45)
        | {"decoder_sparse_step": 1, "mlp_only_layers": [1], "norm_topk_prob": True},
        tokens=(1, 7),
        seed=11502,
        covers="2 of 5 experts, weights made to sum to one, a plain MLP in layer 1 by "
        "mlp_only_layers; norms of queries and keys",
    ),
    Case(
        name="qwen3-moe-raw",
        config=_QWEN3_MOE
        | sizes(3, 1, 18, 20, d_vocab=45)
        | {"decoder_sparse_step": 2, "mlp_only_layers": [], "norm_topk_prob": False},
        tokens=(1, 7),
        seed=1503,
        covers="weights of the chosen experts as the softmax over all gives them; "
        "decoder_sparse_step 2: a plain MLP in layer 0, experts in layer 1",
    ),
)
