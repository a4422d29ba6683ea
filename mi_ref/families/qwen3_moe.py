"""Qwen 3 mixtures of experts: ``model_type: qwen3_moe``.

Differs from Qwen 3: the MLP is a mixture of experts in every ``decoder_sparse_step``-th layer that
is not among ``mlp_only_layers``; a window, if any, applies to all layers; heads are ``d_model /
n_heads`` wide by default.

Source: transformers 5.23.0 ``models/qwen3_moe``; arXiv:2505.09388.
"""

from __future__ import annotations

from mi_ref.config.decoder import (
    Attention,
    Causal,
    DecoderConfig,
    Experts,
    GatedMLP,
    QKNorm,
    RMSNorm,
)
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, NORMS, QK_NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.window_keys import read_mask

WEIGHT_NAMES = llama_like(
    ATTENTION,
    QK_NORMS,
    NORMS,
    GATED,
    {
        "router": "mlp.gate",
        "expert_gate": "mlp.experts.{expert}.gate_proj",
        "expert_in": "mlp.experts.{expert}.up_proj",
        "expert_out": "mlp.experts.{expert}.down_proj",
    },
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Qwen 3 MoE ``config.json`` describes.

    An absent key has the default of transformers' ``Qwen3MoeConfig``.
    """
    d_model = read.integer("hidden_size", 2048)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 24)
    n_ctx = read.integer("max_position_embeddings", 32768)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    bias = read.flag("attention_bias", False)
    sliding = read_mask(read, 4096)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 4),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=sliding if read.flag("use_sliding_window", False) else Causal(),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(QKNorm(norm=norm, per_head=True),),
        bias_qkv=bias,
        bias_out=bias,
    )
    # Configs on the Hub have it, but HuggingFace does not read it for this family.
    read.count("max_window_layers", 0)
    act_fn = read.activation("hidden_act", "silu")
    n_experts = read.integer("num_local_experts", read.integer("num_experts", 128))
    experts = Experts(
        n_experts=n_experts,
        n_active=read.active_experts("num_experts_per_tok", 8, ("num_experts", n_experts)),
        renormalise=read.flag("norm_topk_prob", False),
        d_mlp=read.integer("moe_intermediate_size", 768),
        act_fn=act_fn,
    )
    dense = GatedMLP(d_mlp=read.integer("intermediate_size", 6144), act_fn=act_fn, bias=False)
    step = read.integer("decoder_sparse_step", 1)
    plain = read.counts("mlp_only_layers")
    mlps = (dense if n in plain or (n + 1) % step else experts for n in range(n_layers))
    return transformer(
        model_type="qwen3_moe",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 151936),
        n_ctx=n_ctx,
        layers=tuple(block(attn, mlp, before=norm, after=None) for mlp in mlps),
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
