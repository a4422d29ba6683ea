"""Gemma 3, text only: ``model_type: gemma3_text``.

Differs from Gemma 2: each head's queries and keys are normed before rotary embedding; five layers
with a window of keys to one without, and each of the two kinds has rotary embedding of its own; no
soft-caps by default.

Source: transformers 5.23.0 ``models/gemma3``; arXiv:2503.19786.
"""

from __future__ import annotations

from mi_ref.config import Attention, DecoderConfig, GatedMLP, Layer, QKNorm, RMSNorm
from mi_ref.families.names import ATTENTION, GATED, QK_NORMS, SANDWICH, llama_like
from mi_ref.hf_config import HfConfig
from mi_ref.layer_types import FULL, SLIDING, read_layer_types, read_window, windows
from mi_ref.rope_config import read_rope_by_type

WEIGHT_NAMES = llama_like(ATTENTION, QK_NORMS, SANDWICH, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Gemma 3 ``config.json`` describes.

    An absent key means the default of transformers' ``Gemma3TextConfig``.
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
    n_kv_heads = read.groups("num_key_value_heads", n_heads, 4)
    scale = read.number("query_pre_attn_scalar", 256.0) ** -0.5
    softcap = read.optional("attn_logit_softcapping", None)
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
        Layer(
            order="sequential",
            ln1=norm,
            attn=Attention(
                n_heads=n_heads,
                n_key_value_heads=n_kv_heads,
                d_head=d_head,
                scale=scale,
                softcap=softcap,
                window=window,
                rotary=rotaries[kind],
                qk_norm=QKNorm(norm=norm, per_head=True),
                bias_qkv=bias,
                bias_out=bias,
            ),
            ln1_post=norm,
            ln2=norm,
            mlp=mlp,
            ln2_post=norm,
        )
        for kind, window in zip(types, windows(read, types, read_window(read, 4096)), strict=True)
    )
    read.only("use_bidirectional_attention", (False,), "no query sees a later key here")
    return DecoderConfig(
        model_type="gemma3_text",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 262208),
        n_ctx=n_ctx,
        embed_scale=d_model**0.5,
        learned_positions=False,
        ln_embed=None,
        layers=layers,
        ln_final=norm,
        bias_unembed=False,
        softcap=read.optional("final_logit_softcapping", None),
        tied=read.flag("tie_word_embeddings", True),
        inferred=(),
        compat=None,
        unread_config=(),
    )
