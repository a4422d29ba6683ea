"""Mistral 7B, Mistral NeMo and other models with ``model_type: mistral``.

Differs from LLaMA: in every layer a query sees a window of keys, unless ``sliding_window`` is null;
keys and values are grouped by default; no biases.

Source: transformers 5.23.0 ``models/mistral``; arXiv:2310.06825.
"""

from __future__ import annotations

from mi_ref.config.decoder import Attention, DecoderConfig, GatedMLP, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.window_keys import read_mask

WEIGHT_NAMES = llama_like(ATTENTION, NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Mistral ``config.json`` describes.

    An absent key has the default of transformers' ``MistralConfig``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 32)
    n_ctx = read.integer("max_position_embeddings", 131072)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 8),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=read_mask(read, 4096),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(),
        bias_qkv=False,
        bias_out=False,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 14336),
        act_fn=read.activation("hidden_act", "silu"),
        bias=False,
    )
    return transformer(
        model_type="mistral",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 32000),
        n_ctx=n_ctx,
        layers=(block(attn, mlp, before=norm, after=None),) * n_layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
