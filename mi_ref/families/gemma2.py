"""Gemma 2: ``model_type: gemma2``.

Differs from Gemma: norms also follow attention and MLP; tanh bounds scores and logits; every other
layer, starting with the first, sees a window of keys; ``query_pre_attn_scalar`` instead of the
heads' width scales the scores.

Source: transformers 5.23.0 ``models/gemma2``; arXiv:2408.00118.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, GatedMLP, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, SANDWICH, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, score_cap, transformer
from mi_ref.families.reading.window_keys import masks, read_layer_types, read_mask

WEIGHT_NAMES = llama_like(ATTENTION, SANDWICH, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Gemma 2 ``config.json`` describes.

    An absent key has the default of transformers' ``Gemma2Config``.
    """
    d_model = read.integer("hidden_size", 2304)
    n_heads = read.integer("num_attention_heads", 8)
    n_layers = read.integer("num_hidden_layers", 26)
    n_ctx = read.integer("max_position_embeddings", 8192)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=True)
    d_head = read.integer("head_dim", 256)
    bias = read.flag("attention_bias", False)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 4),
        d_head=d_head,
        scale=read.number("query_pre_attn_scalar", 256.0) ** -0.5,
        mask=Causal(),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=score_cap(read.optional("attn_logit_softcapping", 50.0)),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 9216),
        act_fn=read.activation("hidden_activation", "gelu_pytorch_tanh"),
        bias=False,
    )
    types = read_layer_types(read, n_layers, lambda number: number % 2 == 0)
    layers = tuple(
        block(replace(attn, mask=mask), mlp, before=norm, after=norm)
        for mask in masks(read, types, read_mask(read, 4096))
    )
    read.only("hidden_act", ("gelu_pytorch_tanh",), "HuggingFace reads hidden_activation instead")
    read.only("use_bidirectional_attention", (False,), "attention is causal here")
    return transformer(
        model_type="gemma2",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 256000),
        n_ctx=n_ctx,
        embed_scale=d_model**0.5,
        layers=layers,
        ln_final=norm,
        softcap=read.optional("final_logit_softcapping", 30.0),
        tied=read.flag("tie_word_embeddings", True),
    )
