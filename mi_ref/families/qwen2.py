"""Qwen 2, Qwen 2.5 and other models with ``model_type: qwen2``.

Differs from LLaMA: queries, keys and values always have biases; with ``use_sliding_window``, layers
from ``max_window_layers`` on see a window of keys.

Source: transformers 5.23.0 ``models/qwen2``; arXiv:2407.10671.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, GatedMLP, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.window_keys import read_switched_masks

WEIGHT_NAMES = llama_like(ATTENTION, NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Qwen 2 or 2.5 ``config.json`` describes.

    An absent key has the default of transformers' ``Qwen2Config``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 32)
    n_ctx = read.integer("max_position_embeddings", 32768)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 32),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=Causal(),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(),
        bias_qkv=True,
        bias_out=False,
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
        model_type="qwen2",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 151936),
        n_ctx=n_ctx,
        layers=layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
