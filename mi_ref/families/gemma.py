"""Gemma 1 and CodeGemma: ``model_type: gemma``.

Differs from LLaMA: norms store their gain minus one; the embedding is multiplied by the square root
of ``d_model``; GELU by tanh, which ``gelu`` in its configs also means; heads are 256 wide by
default; tied by default.

Source: transformers 5.23.0 ``models/gemma``; arXiv:2403.08295.
"""

from __future__ import annotations

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, GatedMLP, RMSNorm
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.inert_keys import ACTIVATIONS
from mi_ref.families.reading.llama_names import ATTENTION, GATED, NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer

WEIGHT_NAMES = llama_like(ATTENTION, NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a Gemma ``config.json`` describes.

    An absent key has the default of transformers' ``GemmaConfig``.
    """
    d_model = read.integer("hidden_size", 3072)
    n_heads = read.integer("num_attention_heads", 16)
    n_layers = read.integer("num_hidden_layers", 28)
    n_ctx = read.integer("max_position_embeddings", 8192)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=True)
    d_head = read.integer("head_dim", 256)
    bias = read.flag("attention_bias", False)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 16),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=Causal(),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = GatedMLP(
        d_mlp=read.integer("intermediate_size", 24576),
        # Early configs say "gelu", which HuggingFace reads as the tanh approximation.
        act_fn=read.choice("hidden_act", ACTIVATIONS | {"gelu": "gelu_tanh"}, "gelu_pytorch_tanh"),
        bias=False,
    )
    read.only("hidden_activation", ("gelu_pytorch_tanh",), "HuggingFace reads hidden_act instead")
    read.only("use_bidirectional_attention", (False,), "attention is causal here")
    return transformer(
        model_type="gemma",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 256000),
        n_ctx=n_ctx,
        embed_scale=d_model**0.5,
        layers=(block(attn, mlp, before=norm, after=None),) * n_layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", True),
    )
