"""What the transformer families share: a block of attention and MLP, and a decoder of such blocks.

The defaults of `transformer` are LLaMA's, so a family file states only where its decoder differs,
and a new optional part of a decoder changes only the families that have it. A family cannot forget
one in silence: the part's key in ``config.json`` would be refused as unread and its tensors as
unused, and a test lists for every family how its structure differs from LLaMA's.
"""

from __future__ import annotations

from mi_ref.config.decoder import MLP, Attention, DecoderConfig, Layer, NormKind, ScoreCap


def score_cap(limit: float | None) -> tuple[ScoreCap, ...]:
    """Return the extra of attention that bounds scores by `limit`; none for None."""
    return () if limit is None else (ScoreCap(limit=limit),)


def block(attn: Attention, mlp: MLP, *, before: NormKind | None, after: NormKind | None) -> Layer:
    """Return a block in which the MLP follows attention and both are normed alike.

    Parameters
    ----------
    attn : Attention
        The attention.
    mlp : MLP
        The MLP.
    before : RMSNorm, LayerNorm or None
        Norm of what attention and MLP read.
    after : RMSNorm, LayerNorm or None
        Norm of what they write.
    """
    return Layer(
        order="sequential",
        ln1=before,
        attn=attn,
        ln1_post=after,
        ln2=before,
        mlp=mlp,
        ln2_post=after,
    )


def transformer(
    *,
    model_type: str,
    d_model: int,
    d_vocab: int,
    n_ctx: int,
    layers: tuple[Layer, ...],
    ln_final: NormKind,
    tied: bool,
    embed_scale: float | None = None,
    learned_positions: bool = False,
    bias_unembed: bool = False,
    softcap: float | None = None,
) -> DecoderConfig:
    """Return a decoder of transformer blocks.

    Parameters
    ----------
    model_type, d_model, d_vocab, n_ctx, layers, ln_final, tied
        Fields of `DecoderConfig` that every family states.
    embed_scale, learned_positions, bias_unembed, softcap
        Fields of `DecoderConfig` in which few families differ from LLaMA.
    """
    return DecoderConfig(
        model_type=model_type,
        d_model=d_model,
        d_vocab=d_vocab,
        n_ctx=n_ctx,
        embed_scale=embed_scale,
        learned_positions=learned_positions,
        ln_embed=None,
        layers=layers,
        ln_final=ln_final,
        bias_unembed=bias_unembed,
        softcap=softcap,
        tied=tied,
    )
