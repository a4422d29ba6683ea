"""Gemma 3, text only: ``model_type: gemma3_text``.

Differs from Gemma 2: the queries and keys of each head are normed before rotary embedding; five
layers with a window of keys are followed by one without, and each of the two kinds has its own
rotary embedding; no soft-caps by default.

Source: transformers 5.23.0 ``models/gemma3``; arXiv:2503.19786.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, GatedMLP, QKNorm, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, GATED, QK_NORMS, SANDWICH, llama_like
from mi_ref.families.reading.rope_keys import read_rope_by_type
from mi_ref.families.reading.transformer import block, score_cap, transformer
from mi_ref.families.reading.window_keys import FULL, SLIDING, masks, read_layer_types, read_mask

WEIGHT_NAMES = llama_like(ATTENTION, QK_NORMS, SANDWICH, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Gemma 3 ``config.json`` describes.

    An absent key has the default of transformers' ``Gemma3TextConfig``.
    """
    d_model = read.integer("hidden_size", 2304)
    n_heads = read.integer("num_attention_heads", 8)
    n_layers = read.integer("num_hidden_layers", 26)
    n_ctx = read.integer("max_position_embeddings", 131072)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=True)
    d_head = read.integer("head_dim", 256)
    bias = read.flag("attention_bias", False)
    thetas = {FULL: ("rope_theta", 1_000_000.0), SLIDING: ("rope_local_base_freq", 10_000.0)}
    rotaries = read_rope_by_type(read, n_ctx=n_ctx, d_head=d_head, thetas=thetas, scaled=FULL)
    cap = score_cap(read.optional("attn_logit_softcapping", None))
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 4),
        d_head=d_head,
        scale=read.number("query_pre_attn_scalar", 256.0) ** -0.5,
        mask=Causal(),
        rotary=rotaries[FULL],
        extras=(QKNorm(norm=norm, per_head=True), *cap),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 9216),
        act_fn=read.activation("hidden_activation", "gelu_pytorch_tanh"),
        bias=False,
    )
    # transformers 5 saves the pattern with an underscore, which it does not read back.
    read.count("_sliding_window_pattern", 6)
    pattern = read.integer("sliding_window_pattern", 6)
    types = read_layer_types(read, n_layers, lambda number: (number + 1) % pattern != 0)
    layers = tuple(
        block(replace(attn, mask=mask, rotary=rotaries[kind]), mlp, before=norm, after=norm)
        for kind, mask in zip(types, masks(read, types, read_mask(read, 4096)), strict=True)
    )
    read.only("use_bidirectional_attention", (False,), "attention is causal here")
    return transformer(
        model_type="gemma3_text",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 262208),
        n_ctx=n_ctx,
        embed_scale=d_model**0.5,
        layers=layers,
        ln_final=norm,
        softcap=read.optional("final_logit_softcapping", None),
        tied=read.flag("tie_word_embeddings", True),
    )
