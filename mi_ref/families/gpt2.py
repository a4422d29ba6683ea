"""GPT-2, DistilGPT-2 and other models with ``model_type: gpt2``.

Differs from LLaMA: learned positions are added to the embedding; layer norms; a plain MLP; biases
everywhere; linear maps are stored ``[d_in, d_out]``; query, key and value share a tensor; tied by
default.

Source: transformers 5.23.0 ``models/gpt2``; Radford et al. 2019.
"""

from __future__ import annotations

from dataclasses import replace

from mi_ref.config.decoder import Attention, Causal, DecoderConfig, LayerNorm, PlainMLP
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.transformer import block, transformer
from mi_ref.families.reading.weight_names import Fused, WeightNames

WEIGHT_NAMES = WeightNames(
    prefix="transformer.",
    embed="wte",
    pos_embed="wpe",
    ln_embed=None,
    ln_final="ln_f",
    unembed="lm_head",
    block="h.{layer}.",
    modules={
        "ln1": "ln_1",
        "out": "attn.c_proj",
        "ln2": "ln_2",
        "mlp_in": "mlp.c_fc",
        "mlp_out": "mlp.c_proj",
    },
    fused=(Fused(path="attn.c_attn", slots=("query", "key", "value"), per_head=False),),
    stored={},
    transposed=True,
    # The causal mask, which old files contain.
    ignored=("attn.bias", "attn.masked_bias"),
    others=(),
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a GPT-2 ``config.json`` describes.

    An absent key has the default of transformers' ``GPT2Config``.
    """
    d_model = read.integer("n_embd", 768)
    n_heads = read.integer("n_head", 12)
    n_ctx = read.integer("n_positions", 1024)
    norm = LayerNorm(eps=read.number("layer_norm_epsilon", 1e-5))
    d_head = read.equal_heads(("n_embd", d_model), ("n_head", n_heads))
    attn = Attention(
        n_heads=n_heads,
        n_key_value_heads=n_heads,
        d_head=d_head,
        scale=d_head**-0.5 if read.flag("scale_attn_weights", True) else 1.0,
        mask=Causal(),
        rotary=None,
        extras=(),
        bias_qkv=True,
        bias_out=True,
    )
    mlp = PlainMLP(
        d_mlp=read.integer("n_inner", 4 * d_model),
        act_fn=read.activation("activation_function", "gelu_new"),
        bias=True,
    )
    by_layer = read.flag("scale_attn_by_inverse_layer_idx", False)
    scales = (
        attn.scale / (number + 1) if by_layer else attn.scale
        for number in range(read.integer("n_layer", 12))
    )
    # Changes the order of a product and a cast, but not what is computed.
    read.flag("reorder_and_upcast_attn", False)
    read.only("add_cross_attention", (False,), "there is no encoder to attend to")
    # An older name of n_positions, which HuggingFace does not read.
    read.only("n_ctx", (n_ctx,), f"n_positions is {n_ctx}")
    return transformer(
        model_type="gpt2",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 50257),
        n_ctx=n_ctx,
        learned_positions=True,
        layers=tuple(
            block(replace(attn, scale=scale), mlp, before=norm, after=None) for scale in scales
        ),
        ln_final=norm,
        tied=read.flag("tie_word_embeddings", True),
    )
