"""LLaMA 1, 2, 3, 3.1, 3.2 and whatever shares ``model_type: llama``.

TinyLlama, SmolLM, DeepSeek-Coder, Vicuna, Yi and others. The plain case that other families
differ from: RMSNorm before attention and before the MLP, rotary positions on the whole head,
grouped keys and values, a gated MLP, biases only where the config asks for them.

Source: transformers 5.23.0 ``models/llama``; arXiv:2302.13971, 2307.09288, 2407.21783.
"""

from __future__ import annotations

from mi_ref.config import Attention, DecoderConfig, GatedMLP, Layer, RMSNorm
from mi_ref.families.names import ATTENTION, GATED, NORMS, llama_like
from mi_ref.hf_config import HfConfig
from mi_ref.rope_config import read_rope

WEIGHT_NAMES = llama_like(ATTENTION, NORMS, GATED)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a LLaMA ``config.json`` describes.

    An absent key means the default of transformers' ``LlamaConfig``.
    """
    d_model = read.integer("hidden_size", 4096)
    n_heads = read.integer("num_attention_heads", 32)
    n_ctx = read.integer("max_position_embeddings", 2048)
    norm = RMSNorm(eps=read.number("rms_norm_eps", 1e-6), unit_offset=False)
    d_head = read.head_width("head_dim", d_model, n_heads)
    bias = read.flag("attention_bias", False)
    layer = Layer(
        order="sequential",
        ln1=norm,
        attn=Attention(
            n_heads=n_heads,
            n_key_value_heads=read.groups("num_key_value_heads", n_heads),
            d_head=d_head,
            scale=d_head**-0.5,
            softcap=None,
            window=None,
            rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
            qk_norm=None,
            bias_qkv=bias,
            bias_out=bias,
        ),
        ln1_post=None,
        ln2=norm,
        mlp=GatedMLP(
            d_mlp=read.integer("intermediate_size", 11008),
            act_fn=read.activation("hidden_act", "silu"),
            bias=read.flag("mlp_bias", False),
        ),
        ln2_post=None,
    )
    # SmolLM's files say that they are LLaMA and that rotary pairs are not interleaved.
    read.only("is_llama_config", (True,), "this family is LLaMA's own")
    read.only("rope_interleaved", (False,), "HuggingFace's LLaMA rotates halves, not pairs")
    read.only("is_causal", (True,), "this forward pass lets no query see a later key")
    # Slicing of products for one training set-up; HuggingFace stopped reading it.
    read.only("pretraining_tp", range(1, 65), "it should be a number of slices")
    return DecoderConfig(
        model_type="llama",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 32000),
        n_ctx=n_ctx,
        embed_scale=None,
        learned_positions=False,
        ln_embed=None,
        layers=(layer,) * read.integer("num_hidden_layers", 32),
        ln_final=norm,
        bias_unembed=False,
        softcap=None,
        tied=read.flag("tie_word_embeddings", False),
        inferred=(),
        compat=None,
        unread_config=(),
    )
