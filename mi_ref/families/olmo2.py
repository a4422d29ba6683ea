"""OLMo 2: ``model_type: olmo2``.

Differs from LLaMA: norms follow attention and MLP instead of preceding them; queries and keys are
normed as well, all heads as one row.

Source: transformers 5.23.0 ``models/olmo2``; arXiv:2501.00656.
"""

from __future__ import annotations

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, GatedMLP, QKNorm, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, POST_NORMS, QK_NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer

WEIGHT_NAMES = llama_like(ATTENTION, QK_NORMS, POST_NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that an OLMo 2 ``config.json`` describes.

    An absent key has the default of transformers' ``Olmo2Config``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 32)
    n_ctx = read.integer("max_position_embeddings", 2048)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-5), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    bias = read.flag("attention_bias", False)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=Causal(),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(QKNorm(norm=norm, per_head=False),),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 11008),
        act_fn=read.activation("hidden_act", "silu"),
        bias=False,
    )
    return transformer(
        model_type="olmo2",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 50304),
        n_ctx=n_ctx,
        layers=(block(attn, mlp, before=None, after=norm),) * n_layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
