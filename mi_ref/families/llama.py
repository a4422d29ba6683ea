"""LLaMA 1, 2, 3, 3.1 and 3.2, and other models with ``model_type: llama``.

TinyLlama, SmolLM, DeepSeek-Coder, Vicuna, Yi and others. Other families are described by how they
differ from this one: RMSNorm before attention and before the MLP, rotary embedding of the whole
head, grouped keys and values, a gated MLP, biases only where the config asks for them.

Source: transformers 5.23.0 ``models/llama``; arXiv:2302.13971, 2307.09288, 2407.21783.
"""

from __future__ import annotations

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, GatedMLP, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer

WEIGHT_NAMES = llama_like(ATTENTION, NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a LLaMA ``config.json`` describes.

    An absent key has the default of transformers' ``LlamaConfig``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_ctx = read.integer("max_position_embeddings", 2048)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    bias = read.flag("attention_bias", False)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=Causal(),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 11008),
        act_fn=read.activation("hidden_act", "silu"),
        bias=read.flag("mlp_bias", False),
    )
    layer = block(attn, mlp, before=norm, after=None)
    # SmolLM's configs state that they are LLaMA's and that rotary pairs are not interleaved.
    read.only("is_llama_config", (True,), "the llama family reads LLaMA configs")
    read.only("rope_interleaved", (False,), "HuggingFace's LLaMA rotates halves, not pairs")
    read.only("is_causal", (True,), "attention is causal here")
    # Splits products into slices in one training setup; HuggingFace no longer reads it.
    read.only("pretraining_tp", range(1, 65), "expected a number of slices from 1 to 64")
    return transformer(
        model_type="llama",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 32000),
        n_ctx=n_ctx,
        layers=(layer,) * read.integer("num_hidden_layers", 32),
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
