"""Qwen 3 and other models with ``model_type: qwen3``.

Differs from LLaMA: the queries and keys of each head are normed before rotary embedding; heads are
128 wide by default; with ``use_sliding_window``, layers from ``max_window_layers`` on see a window
of keys.

Source: transformers 5.23.0 ``models/qwen3``; arXiv:2505.09388.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, GatedMLP, QKNorm, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, NORMS, QK_NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.window_keys import read_switched_masks

WEIGHT_NAMES = llama_like(ATTENTION, QK_NORMS, NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Qwen 3 ``config.json`` describes.

    An absent key has the default of transformers' ``Qwen3Config``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 32)
    n_ctx = read.integer("max_position_embeddings", 32768)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=False)
    d_head = read.integer("head_dim", 128)
    bias = read.flag("attention_bias", False)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 32),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=Causal(),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(QKNorm(norm=norm, per_head=True),),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 22016),
        act_fn=read.activation("hidden_act", "silu"),
        bias=False,
    )
    layers = tuple(
        block(replace(attn, mask=mask), mlp, before=norm, after=None)
        for mask in read_switched_masks(read, n_layers)
    )
    return transformer(
        model_type="qwen3",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 151936),
        n_ctx=n_ctx,
        layers=layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
