"""RWKV-6 in flash-linear-attention's layout, also ``model_type: rwkv6``.

Its code norms the heads' outputs with the epsilon of the other norms. The models were trained with
64 times that value, which its converter sets at run time, so 64 times is the default of
``group_norm_eps`` here.

Source: flash-linear-attention ``layers/rwkv6.py``, ``models/rwkv6``.
"""

from __future__ import annotations

from mi_ref.config.decoder import DecoderConfig, TimeMix6
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.fla import fla_layout, read_fla, recurrent_decoder
from mi_ref.families.reading.weight_names import Stored

WEIGHT_NAMES = fla_layout(
    modules={
        "receptance": "attn.r_proj.linear",
        "key": "attn.k_proj.linear",
        "value": "attn.v_proj.linear",
        "gate": "attn.g_proj.linear",
        "out": "attn.o_proj",
        "mlp_in": "ffn.key.linear",
        "mlp_gate": "ffn.receptance.linear",
        "mlp_out": "ffn.value",
    },
    stored={
        "shift": Stored("attn.x_proj.0.mu"),
        **{
            slot: Stored(path, axis=axis, index=index, count=5)
            for index, name in enumerate(("r", "w", "k", "v", "g"))
            for slot, path, axis in (
                (f"shift_{name}", "attn.x_bias", None),
                (f"shift_{name}_down", "attn.x_proj.0.linear.weight", 0),
                (f"shift_{name}_up", "attn.x_proj.2.weight", 1),
            )
        },
        "decay": Stored("attn.w_proj.linear.lora.2.bias"),
        "decay_down": Stored("attn.w_proj.linear.lora.0.weight"),
        "decay_up": Stored("attn.w_proj.linear.lora.2.weight"),
        "bonus": Stored("attn.bonus"),
        "mlp_shift": Stored("ffn.key.mu"),
        "mlp_gate_shift": Stored("ffn.receptance.mu"),
    },
    others=(),
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that such a config describes; absent keys have their class's defaults."""
    sizes = read_fla(read, ratio=3.5, gated=True)
    for key, default in (("expand_k", 0.5), ("expand_v", 1.0)):
        expand = read.number(key, default)
        read.require(expand == 1.0, f"{key} is {expand}: keys and values are as wide as the model")
    n_heads = read.integer("num_heads", 4)
    mixer = TimeMix6(
        n_heads=n_heads,
        d_head=read.equal_heads(("hidden_size", sizes.d_model), ("num_heads", n_heads)),
        d_shift=read.rank("proj_low_rank_dim", 32, ".0.attn.x_proj.0.linear.weight", 0, parts=5),
        d_decay=read.rank("gate_low_rank_dim", 64, ".0.attn.w_proj.linear.lora.0.weight", 0),
        group_norm_eps=read.number("group_norm_eps", 64 * sizes.norm.eps),
    )
    mixers = (mixer,) * read.integer("num_hidden_layers", 24)
    return recurrent_decoder(read, sizes, model_type="rwkv6", d_vocab=32000, mixers=mixers)
