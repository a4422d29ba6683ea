"""StarCoder2: ``model_type: starcoder2``.

Differs from LLaMA: layer norms; a plain MLP with GELU by tanh; biases in all linear maps unless
``use_bias`` is false; a window of keys if ``sliding_window`` is given; tied by default.

Source: transformers 5.23.0 ``models/starcoder2``; arXiv:2402.19173.
"""

from __future__ import annotations

from mi_ref.config.decoder import Attention, DecoderConfig, LayerNorm, PlainMLP
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import ATTENTION, NORMS, llama_like
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.window_keys import read_mask

WEIGHT_NAMES = llama_like(ATTENTION, NORMS, {"mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"})


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a StarCoder2 ``config.json`` describes.

    An absent key has the default of transformers' ``Starcoder2Config``.
    """
    d_model = read.integer("hidden_size", 3072)
    n_heads = read.integer("num_attention_heads", 24)
    n_layers = read.integer("num_hidden_layers", 30)
    n_ctx = read.integer("max_position_embeddings", 4096)
    norm = LayerNorm(eps=read.number("norm_epsilon", 1e-5))
    d_head = read.head_width("head_dim", d_model, n_heads)
    bias = read.flag("use_bias", True)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=read.groups("num_key_value_heads", n_heads, 2),
        d_head=d_head,
        scale=d_head**-0.5,
        mask=read_mask(read, None),
        rotary=read_rope(read, n_ctx=n_ctx, d_head=d_head, default_theta=10_000.0),
        extras=(),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = PlainMLP(
        d_mlp=read.integer("intermediate_size", 12288),
        act_fn=read.activation("hidden_act", "gelu_pytorch_tanh"),
        bias=bias,
    )
    read.only("norm_type", ("layer_norm",), "HuggingFace's StarCoder2 has layer norms")
    read.only("mlp_type", ("default",), "HuggingFace's StarCoder2 has a plain MLP")
    return transformer(
        model_type="starcoder2",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 49152),
        n_ctx=n_ctx,
        layers=(block(attn, mlp, before=norm, after=None),) * n_layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", True),
    )
