"""GPT-NeoX and Pythia: ``model_type: gpt_neox``.

Differs from LLaMA: attention and MLP read the residual stream in parallel, each through its own
layer norm (one after the other if ``use_parallel_residual`` is false); rotary embedding of part of
each head; a plain MLP; biases; query, key and value share a tensor, interleaved by head.

Source: transformers 5.23.0 ``models/gpt_neox``; arXiv:2204.06745, 2304.01373 (Pythia).
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, LayerNorm, PlainMLP
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.llama_names import NORMS
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.weight_names import Fused, WeightNames

WEIGHT_NAMES = WeightNames(
    prefix="gpt_neox.",
    embed="embed_in",
    pos_embed=None,
    ln_embed=None,
    ln_final="final_layer_norm",
    unembed="embed_out",
    block="layers.{layer}.",
    modules={
        **NORMS,
        "out": "attention.dense",
        "mlp_in": "mlp.dense_h_to_4h",
        "mlp_out": "mlp.dense_4h_to_h",
    },
    fused=(
        Fused(path="attention.query_key_value", slots=("query", "key", "value"), per_head=True),
    ),
    stored={},
    transposed=False,
    # The causal mask and the rotary frequencies, which old files contain.
    ignored=("attention.bias", "attention.masked_bias", "attention.rotary_emb.inv_freq"),
    others=(),
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a GPT-NeoX ``config.json`` describes.

    An absent key has the default of transformers' ``GPTNeoXConfig``.
    """
    d_model = read.integer("hidden_size", 6144)
    n_heads = read.integer("num_attention_heads", 64)
    n_layers = read.integer("num_hidden_layers", 44)
    n_ctx = read.integer("max_position_embeddings", 2048)
    norm = LayerNorm(eps=read.number("layer_norm_eps", 1e-5))
    d_head = read.equal_heads(("hidden_size", d_model), ("num_attention_heads", n_heads))
    rotary = read_rope(
        read,
        n_ctx=n_ctx,
        d_head=d_head,
        default_theta=10_000.0,
        theta_key="rotary_emb_base",
        partial_key="rotary_pct",
        default_partial=0.25,
    )
    bias = read.flag("attention_bias", True)
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=n_heads,
        d_head=d_head,
        scale=d_head**-0.5,
        mask=Causal(),
        rotary=rotary,
        extras=(),
        bias_qkv=bias,
        bias_out=bias,
    )
    mlp = PlainMLP(
        d_mlp=read.integer("intermediate_size", 24576),
        act_fn=read.activation("hidden_act", "gelu"),
        bias=True,
    )
    parallel = read.flag("use_parallel_residual", True)
    layer = replace(
        block(attn, mlp, before=norm, after=None), order="parallel" if parallel else "sequential"
    )
    return transformer(
        model_type="gpt_neox",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 50432),
        n_ctx=n_ctx,
        layers=(layer,) * n_layers,
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", False),
    )
