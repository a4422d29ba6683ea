"""RWKV-7, Goose: models with ``model_type: rwkv7``, in flash-linear-attention's layout.

Differs from RWKV-6: how much of the previous token is mixed in does not depend on the input; the
state also loses what it stores under a removal key; layer 0's values are mixed into those of the
others; a low-rank gate, and none in the channel mix.

Source: BlinkDL, RWKV-LM ``RWKV-v7/rwkv_v7_numpy.py``; arXiv:2503.14456; flash-linear-attention
``layers/rwkv7.py``, ``models/rwkv7``.
"""

from __future__ import annotations

from mi_ref.config.decoder import DecoderConfig, TimeMix7
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.fla import fla_layout, read_fla, recurrent_decoder
from mi_ref.families.reading.weight_names import Stored

_INPUTS = ("r", "w", "k", "v", "a", "g")
_MAPS = {"decay": "w", "rate": "a", "value_mix": "v"}

_MODULES = {
    "receptance": "attn.r_proj",
    "key": "attn.k_proj",
    "value": "attn.v_proj",
    "out": "attn.o_proj",
    "mlp_in": "ffn.key",
    "mlp_out": "ffn.value",
}
_STORED = {
    **{
        slot + end: Stored(f"attn.{name}_lora.lora.{path}")
        for slot, name in {**_MAPS, "gate": "g"}.items()
        for end, path in (("_down", "0.weight"), ("_up", "2.weight"), ("", "2.bias"))
        if slot + end != "gate"
    },
    "removal": Stored("attn.k_k"),
    "key_rate": Stored("attn.k_a"),
    "bonus": Stored("attn.r_k"),
    "mlp_shift": Stored("ffn.x_k"),
}
# Files from before each mix had its own name.
_STACKED = {
    f"shift_{name}": Stored("attn.x_x", index=index, count=6) for index, name in enumerate(_INPUTS)
}
_NAMED = {f"shift_{name}": Stored(f"attn.x_{name}", ones=2) for name in _INPUTS}

WEIGHT_NAMES = fla_layout(
    modules=_MODULES,
    stored={**_NAMED, **_STORED},
    others=(fla_layout(modules=_MODULES, stored={**_STACKED, **_STORED}, others=()),),
)


def read_config(read: HfConfig) -> DecoderConfig:
    """Return the decoder that an RWKV-7 ``config.json`` describes.

    An absent key has the default of flash-linear-attention's ``RWKV7Config``, except that the
    tensors set the rank of a low-rank map.
    """
    sizes = read_fla(read, ratio=4.0, gated=False)
    d_model = sizes.d_model
    n_layers = read.integer("num_hidden_layers", 24)
    d_head = read.integer("head_dim", 64)
    n_heads = read.equal_heads(("hidden_size", d_model), ("head_dim", d_head))
    read.only("num_heads", (n_heads,), f"hidden_size over head_dim is {n_heads}")
    read.only("value_dim", (d_model, [d_model] * n_layers), f"hidden_size is {d_model}")
    ranks = {
        name: read.rank(key, default, f".{int(name == 'v')}.attn.{name}_lora.lora.0.weight", 0)
        for name, key, default in (
            ("w", "decay_low_rank_dim", 64),
            ("a", "a_low_rank_dim", 64),
            ("v", "v_low_rank_dim", 16),
            ("g", "gate_low_rank_dim", 128),
        )
    }
    eps = read.number("group_norm_eps", d_head * sizes.norm.eps)
    mixers = tuple(
        TimeMix7(
            n_heads=n_heads,
            d_head=d_head,
            d_decay=ranks["w"],
            d_rate=ranks["a"],
            d_value=ranks["v"] if number else None,
            d_gate=ranks["g"],
            group_norm_eps=eps,
        )
        for number in range(n_layers)
    )
    return recurrent_decoder(read, sizes, model_type="rwkv7", d_vocab=32000, mixers=mixers)
