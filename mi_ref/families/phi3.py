"""Phi-3, Phi-3.5, Phi-4, Phi-4-mini and other models with ``model_type: phi3``.

Differs from LLaMA: query, key and value share a tensor, and so do gate and up; a window of keys if
``sliding_window`` is given; rotary frequencies from two lists (longrope), in Phi-4-mini for part of
each head only.

Source: transformers 5.23.0 ``models/phi3``; arXiv:2404.14219, 2402.13753 (longrope).
"""

from __future__ import annotations

from mi_ref.config.decoder import Attention, DecoderConfig, GatedMLP, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.weight_names import Fused
from mi_ref.families.reading.window_keys import read_mask

WEIGHT_NAMES = llama_like(
    ATTENTION,
    NORMS,
    GATED,
    fused=(
        Fused(path="self_attn.qkv_proj", slots=("query", "key", "value"), per_head=False),
        Fused(path="mlp.gate_up_proj", slots=("mlp_gate", "mlp_in"), per_head=False),
    ),
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Phi-3 or Phi-4 ``config.json`` describes.

    An absent key has the default of transformers' ``Phi3Config``.
    """
    d_model = read.integer("hidden_size", 3072)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 32)
    n_ctx = read.integer("max_position_embeddings", 4096)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-5), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    rotary = read_rope(
        read,
        n_ctx=n_ctx,
        d_head=d_head,
        default_theta=10_000.0,
        partial_key="partial_rotary_factor",
        default_original=4096,
        kinds=("default", "longrope"),
    )
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=read_mask(read, None),
        rotary=rotary,
        extras=(),
        bias_qkv=False,
        bias_out=False,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 8192),
        act_fn=read.activation("hidden_act", "silu"),
        bias=False,
    )
    for key in ("attention_bias", "mlp_bias", "lm_head_bias"):
        read.only(key, (False,), "HuggingFace's Phi-3 has no biases")
    for key in ("full_attn_mod", "interpolate_factor"):
        read.only(key, (1,), "HuggingFace's Phi-3 does not read it")
    return transformer(
        model_type="phi3",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 32064),
        n_ctx=n_ctx,
        layers=(block(attn, mlp, before=norm, after=None),) * n_layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
