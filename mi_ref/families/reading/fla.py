"""What the recurrent families share: a decoder of their blocks, and flash-linear-attention's keys.

Source: flash-linear-attention ``models/rwkv6`` and ``models/rwkv7``, ``configuration_*.py``.
"""

from __future__ import annotations

from dataclasses import dataclass

from mi_ref.config.decoder import ChannelMix, DecoderConfig, LayerNorm, RecurrentLayer, TimeMix
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.weight_names import Stored, WeightNames


def fla_layout(
    modules: dict[str, str], stored: dict[str, Stored], others: tuple[WeightNames, ...]
) -> WeightNames:
    """Return the names of a recurrent model in flash-linear-attention's layout.

    Parameters
    ----------
    modules, stored, others
        As in `WeightNames`. The names of the norms are the same in all models and not repeated.
    """
    return WeightNames(
        prefix="model.",
        embed="embeddings",
        pos_embed=None,
        ln_embed="layers.0.pre_norm",
        ln_final="norm",
        unembed="lm_head",
        block="layers.{layer}.",
        modules={"ln1": "attn_norm", "ln2": "ffn_norm", "group_norm": "attn.g_norm", **modules},
        fused=(),
        stored=stored,
        transposed=False,
        ignored=(),
        others=others,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a config says about all layers."""

    d_model: int
    norm: LayerNorm
    norm_first: bool
    """Whether a norm follows the embedding."""
    mlp: ChannelMix
    n_ctx: int | None


def read_fla(read: HfConfig, *, ratio: float, gated: bool) -> Sizes:
    """Read the keys that RWKV-6 and RWKV-7 share.

    Parameters
    ----------
    read : HfConfig
        The config.
    ratio : float
        Default of ``hidden_ratio``: the width of the channel mix divided by that of the model.
    gated : bool
        Whether the channel mix has a gate.
    """
    d_model = read.integer("hidden_size", 2048)
    width = read.number("hidden_ratio", ratio) * d_model
    # Rounded up to a multiple of 32.
    d_mlp = read.integer("intermediate_size", (int(width) + 31) // 32 * 32)
    length = "max_position_embeddings"
    read.only("norm_bias", (True,), "layer norms have a bias here")
    read.only("attn", (), "a mixture of recurrence and attention is not supported")
    read.only("attn_mode", ("chunk", "fused_recurrent"), "that way of computing is unknown")
    for key in ("fuse_norm", "fuse_cross_entropy", "fuse_linear_cross_entropy", "use_l2warp"):
        read.flag(key, False)  # How it is computed or trained, not what.
    return Sizes(
        d_model=d_model,
        norm=LayerNorm(eps=read.number("norm_eps", 1e-5)),
        norm_first=read.flag("norm_first", True),
        mlp=ChannelMix(d_mlp=d_mlp, act_fn=read.activation("hidden_act", "sqrelu"), gated=gated),
        n_ctx=read.integer(length) if read.has(length) else None,
    )


def recurrent_decoder(
    read: HfConfig, sizes: Sizes, *, model_type: str, d_vocab: int, mixers: tuple[TimeMix, ...]
) -> DecoderConfig:
    """Return a decoder with one block for each of `mixers`.

    Parameters
    ----------
    read : HfConfig
        The config; ``vocab_size`` and ``tie_word_embeddings`` are read here.
    sizes : Sizes
        What all layers share.
    model_type : str
        The family.
    d_vocab : int
        Default of ``vocab_size``.
    mixers : tuple of TimeMix
        Time mixing of each layer.
    """
    norm = sizes.norm
    return DecoderConfig(
        model_type=model_type,
        d_model=sizes.d_model,
        d_vocab=read.integer("vocab_size", d_vocab),
        n_ctx=sizes.n_ctx,
        embed_scale=None,
        learned_positions=False,
        ln_embed=norm if sizes.norm_first else None,
        layers=tuple(
            RecurrentLayer(ln1=norm, mixer=mixer, ln2=norm, mlp=sizes.mlp) for mixer in mixers
        ),
        ln_final=norm,
        bias_unembed=False,
        softcap=None,
        tied=read.flag("tie_word_embeddings", False),
    )
