"""RWKV-6, Finch: models with ``model_type: rwkv6``, in two layouts.

Differs from LLaMA: instead of attention, a state per head that is carried from token to token;
layer norms, one of them after the embedding; inputs mixed with the previous token's. This is the
layout of ``RWKV/v6-Finch-*-HF``, where ``num_attention_heads`` is the *width* of a head; the other
layout is in `mi_ref.families.rwkv6_fla`.

Source: BlinkDL, ChatRWKV ``RWKV_v6_demo.py``; arXiv:2404.05892; the checkpoints' configs.
"""

from __future__ import annotations

from mi_ref.config.decoder import ChannelMix, DecoderConfig, LayerNorm, TimeMix6
from mi_ref.families import rwkv6_fla
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.fla import Sizes, recurrent_decoder
from mi_ref.families.reading.weight_names import Stored, WeightNames

# In the order of the stacked tensors of checkpoints.
_STACKED = ("w", "k", "v", "r", "g")
_TIME, _CHANNEL = "attention.time_", "feed_forward.time_maa_"
_LENGTHS = ("context_length", "model_max_length")

WEIGHT_NAMES = WeightNames(
    prefix="rwkv.",
    embed="embeddings",
    pos_embed=None,
    ln_embed="blocks.0.pre_ln",
    ln_final="ln_out",
    unembed="head",
    block="blocks.{layer}.",
    modules={
        "ln1": "ln1",
        "receptance": "attention.receptance",
        "key": "attention.key",
        "value": "attention.value",
        "gate": "attention.gate",
        "group_norm": "attention.ln_x",
        "out": "attention.output",
        "ln2": "ln2",
        "mlp_in": "feed_forward.key",
        "mlp_gate": "feed_forward.receptance",
        "mlp_out": "feed_forward.value",
    },
    fused=(),
    stored={
        "shift": Stored(f"{_TIME}maa_x", ones=2),
        **{f"shift_{name}": Stored(f"{_TIME}maa_{name}", ones=2) for name in _STACKED},
        **{
            slot: Stored(path, transposed=True, axis=axis, index=index, count=5)
            for index, name in enumerate(_STACKED)
            for slot, path, axis in (
                (f"shift_{name}_down", f"{_TIME}maa_w1", 1),
                (f"shift_{name}_up", f"{_TIME}maa_w2", None),
            )
        },
        "decay": Stored(f"{_TIME}decay", ones=2),
        "decay_down": Stored(f"{_TIME}decay_w1", transposed=True),
        "decay_up": Stored(f"{_TIME}decay_w2", transposed=True),
        "bonus": Stored(f"{_TIME}faaaa"),
        "mlp_shift": Stored(f"{_CHANNEL}k", ones=2),
        "mlp_gate_shift": Stored(f"{_CHANNEL}r", ones=2),
    },
    transposed=False,
    ignored=(),
    others=(rwkv6_fla.WEIGHT_NAMES,),
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that an RWKV-6 ``config.json`` describes, in either layout.

    An absent key has the default of the ``Rwkv6Config`` that comes with the checkpoints.
    """
    if read.has("norm_eps") or read.has("num_heads"):
        return rwkv6_fla.read_config(read)
    d_model = read.integer("hidden_size", 768)
    read.only("attention_hidden_size", (d_model,), f"hidden_size is {d_model}")
    # Older configs have no head_size and give it as num_attention_heads.
    d_head = read.integer("head_size" if read.has("head_size") else "num_attention_heads", 64)
    norm = LayerNorm(eps=read.number("layer_norm_epsilon", 1e-5))
    divisor = read.number("head_size_divisor", 8.0)
    n_heads = read.equal_heads(("hidden_size", d_model), ("the width of a head", d_head))
    counts = (d_head, n_heads)
    read.only("num_attention_heads", counts, f"heads are {d_head} wide, so there are {n_heads}")
    mixer = TimeMix6(
        n_heads=n_heads,
        d_head=d_head,
        d_shift=read.rank("proj_low_rank_dim", 32, f".0.{_TIME}maa_w1", 1, parts=5),
        d_decay=read.rank("gate_low_rank_dim", 64, f".0.{_TIME}decay_w1", 1),
        group_norm_eps=read.number("group_norm_eps", norm.eps * divisor**2),
    )
    # In float16 only: weights and activations are halved after every so many layers.
    read.count("rescale_every", 6)
    lengths = [read.integer(key) for key in _LENGTHS if read.has(key)]
    sizes = Sizes(
        d_model=d_model,
        norm=norm,
        norm_first=True,
        mlp=ChannelMix(
            d_mlp=read.integer("intermediate_size", 7 * d_model // 2 // 32 * 32),
            act_fn="relu_squared",
            gated=True,
        ),
        n_ctx=lengths[0] if lengths else None,
    )
    mixers = (mixer,) * read.integer("num_hidden_layers", 24)
    return recurrent_decoder(read, sizes, model_type="rwkv6", d_vocab=65536, mixers=mixers)
