"""Phi-1, Phi-1.5, Phi-2: ``model_type: phi``.

Differs from LLaMA: attention and MLP read the output of one layer norm in parallel; a plain MLP;
biases everywhere, including the unembedding; rotary embedding of part of each head; with
``qk_layernorm``, the queries and keys of each head are normed before it.

Source: transformers 5.23.0 ``models/phi``; arXiv:2306.11644.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, LayerNorm, PlainMLP, QKNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer

WEIGHT_NAMES = replace(
    llama_like(
        ATTENTION,
        {
            "ln1": "input_layernorm",
            "out": "self_attn.dense",
            "q_norm": "self_attn.q_layernorm",
            "k_norm": "self_attn.k_layernorm",
            "mlp_in": "mlp.fc1",
            "mlp_out": "mlp.fc2",
        },
    ),
    ln_final="final_layernorm",
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Phi-1 or Phi-2 ``config.json`` describes.

    An absent key has the default of transformers' ``PhiConfig``.
    """
    d_model = read.integer("hidden_size", 2048)
    n_heads = read.integer("num_attention_heads", 32)
    n_layers = read.integer("num_hidden_layers", 24)
    n_ctx = read.integer("max_position_embeddings", 2048)
    norm = LayerNorm(eps=read.number("layer_norm_eps", 1e-5))
    d_head = read.head_width("head_dim", d_model, n_heads)
    rotary = read_rope(
        read,
        n_ctx=n_ctx,
        d_head=d_head,
        default_theta=10_000.0,
        partial_key="partial_rotary_factor",
        default_partial=0.5,
    )
    normed = read.flag("qk_layernorm", False)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=Causal(),
        rotary=rotary,
        extras=(QKNorm(norm=norm, per_head=True),) if normed else (),
        bias_qkv=True,
        bias_out=True,
    )
    mlp = PlainMLP(
        d_mlp=read.integer("intermediate_size", 8192),
        act_fn=read.activation("hidden_act", "gelu_new"),
        bias=True,
    )
    layer = replace(block(attn, mlp, before=norm, after=None), order="parallel", ln2=None)
    return transformer(
        model_type="phi",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 51200),
        n_ctx=n_ctx,
        layers=(layer,) * n_layers,
        ln_final=norm,
        bias_unembed=True,
        tied=read.flag("tie_word_embeddings", False),
    )
