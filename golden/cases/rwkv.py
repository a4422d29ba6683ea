"""RWKV cases. The reference is ``rwkv_reference.py``, checked against the package ``rwkv``."""

from __future__ import annotations

from golden.cases.case import Case

# The config of published Finch checkpoints: what is called num_attention_heads is the head's size,
# and an intermediate_size of null is 3.5 times hidden_size rounded down to a multiple of 32.
FINCH = {
    "model_type": "rwkv6",
    "attention_hidden_size": 12,
    "bos_token_id": 0,
    "context_length": 4096,
    "eos_token_id": 0,
    "head_size_divisor": 8,
    "hidden_size": 12,
    "intermediate_size": None,
    "layer_norm_epsilon": 1e-5,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "rescale_every": 6,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": 40,
}

# The class of flash-linear-attention gives the group norm the epsilon norm_eps; the recording has
# 64 times that, with which RWKV-6 is trained and which its own converter sets after loading.
FLA_6 = {
    "model_type": "rwkv6",
    "expand_k": 1.0,
    "expand_v": 1.0,
    "gate_low_rank_dim": 7,
    "hidden_act": "sqrelu",
    "hidden_size": 15,
    "intermediate_size": 28,
    "max_position_embeddings": 2048,
    "norm_bias": True,
    "norm_eps": 1e-5,
    "norm_first": True,
    "num_heads": 3,
    "num_hidden_layers": 2,
    "proj_low_rank_dim": 4,
    "torch_dtype": "bfloat16",
    "vocab_size": 41,
}

# Where fuse_norm is true, the default, flash-linear-attention adds 1e-6 under the root of the norm
# of the removal key; the recording has the authors' formula, which adds nothing.
FLA_7 = {
    "model_type": "rwkv7",
    "a_low_rank_dim": 4,
    "decay_low_rank_dim": 6,
    "gate_low_rank_dim": 8,
    "head_dim": 7,
    "hidden_act": "sqrelu",
    "hidden_ratio": 4.0,
    "hidden_size": 14,
    "intermediate_size": 30,
    "max_position_embeddings": 2048,
    "norm_bias": True,
    "norm_eps": 1e-5,
    "norm_first": True,
    "num_hidden_layers": 3,
    "torch_dtype": "bfloat16",
    "v_low_rank_dim": 3,
    "vocab_size": 40,
}

# Without intermediate_size it is hidden_ratio times hidden_size, rounded up to a multiple of 32.
FLA_7_PLAIN = {
    "model_type": "rwkv7",
    "a_low_rank_dim": 7,
    "decay_low_rank_dim": 6,
    "gate_low_rank_dim": 9,
    "group_norm_eps": 64e-5,
    "head_dim": 4,
    "hidden_act": "sqrelu",
    "hidden_ratio": 2,
    "hidden_size": 12,
    "max_position_embeddings": 2048,
    "norm_bias": True,
    "norm_eps": 2e-5,
    "norm_first": False,
    "num_heads": 3,
    "num_hidden_layers": 2,
    "torch_dtype": "bfloat16",
    "v_low_rank_dim": 8,
    "vocab_size": 39,
}

RWKV_CASES = (
    Case(
        name="rwkv6",
        config=FINCH,
        tokens=(1, 7),
        seed=97,
        covers="layout of RWKV/v6-Finch-*-HF; d_head under the key num_attention_heads, group-norm "
        "eps from head_size_divisor, intermediate_size null, ranks in the shapes alone",
    ),
    Case(
        name="rwkv6-fla",
        config=FLA_6,
        tokens=(1, 6),
        seed=73,
        covers="RWKV-6 in the layout of flash-linear-attention: five mixes in one projection, in "
        "another order, transposed; group-norm eps 64 times norm_eps",
    ),
    Case(
        name="rwkv7",
        config=FLA_7,
        tokens=(1, 5),
        seed=120,
        covers="three layers, the value residual of the third is the value of the first; "
        "group-norm eps d_head times norm_eps",
    ),
    Case(
        name="rwkv7-plain",
        config=FLA_7_PLAIN,
        tokens=(2, 5),
        seed=85,
        covers="no norm before the first layer, group_norm_eps given, norm_eps 2e-5, "
        "intermediate_size from hidden_ratio, two sequences",
    ),
)
