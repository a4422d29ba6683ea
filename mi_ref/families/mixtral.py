"""Mixtral: ``model_type: mixtral``.

Differs from Mistral: each MLP is a mixture of experts, and the weights of a token's experts are
rescaled to sum to one; a window only if ``sliding_window`` is given.

Source: transformers 5.23.0 ``models/mixtral``; arXiv:2401.04088.
"""

from __future__ import annotations

from mi_ref.config.decoder import Attention, DecoderConfig, Experts, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.window_keys import read_mask

WEIGHT_NAMES = llama_like(
    ATTENTION,
    NORMS,
    {
        "router": "block_sparse_moe.gate",
        "expert_gate": "block_sparse_moe.experts.{expert}.w1",
        "expert_in": "block_sparse_moe.experts.{expert}.w3",
        "expert_out": "block_sparse_moe.experts.{expert}.w2",
    },
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Mixtral ``config.json`` describes.

    An absent key has the default of transformers' ``MixtralConfig``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 32)
    n_ctx = read.integer("max_position_embeddings", 131072)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-5), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    n_experts = read.integer("num_local_experts", 8)
    experts = Experts(
        n_experts=n_experts,
        n_active=read.active_experts("num_experts_per_tok", 2, ("num_local_experts", n_experts)),
        renormalise=True,
        d_mlp=read.integer("intermediate_size", 14336),
        act_fn=read.activation("hidden_act", "silu"),
    )
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 8),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=read_mask(read, None),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=1_000_000.0),
        extras=(),
        bias_qkv=False,
        bias_out=False,
    )
    return transformer(
        model_type="mixtral",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 32000),
        n_ctx=n_ctx,
        layers=(block(attn, experts, before=norm, after=None),) * n_layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
