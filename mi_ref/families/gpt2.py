"""GPT-2, DistilGPT-2, and whatever shares ``model_type: gpt2``.

Differs from LLaMA: positions are learned and added to the embedding; layer norms; a plain MLP;
biases everywhere; linear maps are stored ``[d_in, d_out]``; query, key and value share a
tensor; tied by default.

Source: transformers 5.23.0 ``models/gpt2``; Radford et al. 2019.
"""

from __future__ import annotations

from mi_ref.config import Attention, DecoderConfig, Layer, LayerNorm, PlainMLP
from mi_ref.hf_config import HfConfig
from mi_ref.weight_names import Fused, WeightNames

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
    # The causal mask, which old files carry.
    ignored=("attn.bias", "attn.masked_bias"),
    others=(),
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that a GPT-2 ``config.json`` describes.

    An absent key means the default of transformers' ``GPT2Config``.
    """
    d_model = read.integer("n_embd", 768)
    n_heads = read.integer("n_head", 12)
    n_ctx = read.integer("n_positions", 1024)
    norm = LayerNorm(eps=read.number("layer_norm_epsilon", 1e-5))
    d_head = read.equal_heads(("n_embd", d_model), ("n_head", n_heads))
    scale = d_head**-0.5 if read.flag("scale_attn_weights", True) else 1.0
    by_layer = read.flag("scale_attn_by_inverse_layer_idx", False)
    mlp = PlainMLP(
        d_mlp=read.integer("n_inner", 4 * d_model),
        act_fn=read.activation("activation_function", "gelu_new"),
        bias=True,
    )
    layers = tuple(
        Layer(
            order="sequential",
            ln1=norm,
            attn=Attention(
                n_heads=n_heads,
                n_key_value_heads=n_heads,
                d_head=d_head,
                scale=scale / (number + 1) if by_layer else scale,
                softcap=None,
                window=None,
                rotary=None,
                qk_norm=None,
                bias_qkv=True,
                bias_out=True,
            ),
            ln1_post=None,
            ln2=norm,
            mlp=mlp,
            ln2_post=None,
        )
        for number in range(read.integer("n_layer", 12))
    )
    # Only the order of a product and a cast; the numbers are the same.
    read.flag("reorder_and_upcast_attn", False)
    read.only("add_cross_attention", (False,), "there is no encoder to attend to")
    # An older name of n_positions, which HuggingFace does not read.
    read.only("n_ctx", (n_ctx,), f"n_positions is {n_ctx}")
    return DecoderConfig(
        model_type="gpt2",
        d_model=d_model,
        d_vocab=read.integer("vocab_size", 50257),
        n_ctx=n_ctx,
        embed_scale=None,
        learned_positions=True,
        ln_embed=None,
        layers=layers,
        ln_final=norm,
        bias_unembed=False,
        softcap=None,
        tied=read.flag("tie_word_embeddings", True),
        inferred=(),
        compat=None,
        unread_config=(),
    )
