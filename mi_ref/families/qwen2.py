"""Qwen 2 and Qwen 2.5, and whatever shares ``model_type: qwen2``.

Differs from LLaMA: queries, keys and values always have biases; if ``use_sliding_window``, layers
from ``max_window_layers`` on see a window of keys.

Source: transformers 5.23.0 ``models/qwen2``; arXiv:2407.10671.
"""

from __future__ import annotations

from mi_ref.config import Attention, DecoderConfig, GatedMLP, Layer, RMSNorm
from mi_ref.families.names import ATTENTION, GATED, NORMS, llama_like
from mi_ref.hf_config import HfConfig
from mi_ref.layer_types import read_switched_windows
from mi_ref.rope_config import read_rope

WEIGHT_NAMES = llama_like(ATTENTION, NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Qwen 2 or 2.5 ``config.json`` describes.

    An absent key means the default of transformers' ``Qwen2Config``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 32)
    n_ctx = read.integer("max_position_embeddings", 32768)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    rotary = read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0)
    n_kv_heads = read.groups("num_key_value_heads", n_heads, 32)
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 22016),
        act_fn=read.activation("hidden_act", "silu"),
        bias=False,
    )
    layers = tuple(
        Layer(
            order="sequential",
            ln1=norm,
            attn=Attention(
                n_heads=n_heads,
                n_key_value_heads=n_kv_heads,
                d_head=d_head,
                scale=d_head**-0.5,
                softcap=None,
                window=window,
                rotary=rotary,
                qk_norm=None,
                bias_qkv=True,
                bias_out=False,
            ),
            ln1_post=None,
            ln2=norm,
            mlp=mlp,
            ln2_post=None,
        )
        for window in read_switched_windows(read, n_layers)
    )
    return DecoderConfig(
        model_type="qwen2",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 151936),
        n_ctx=n_ctx,
        embed_scale=None,
        learned_positions=False,
        ln_embed=None,
        layers=layers,
        ln_final=norm,
        bias_unembed=False,
        softcap=None,
        tied=read.flag("tie_word_embeddings", False),
        inferred=(),
        compat=None,
        unread_config=(),
    )
