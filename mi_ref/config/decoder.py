"""The structure of a decoder as data: variants that the forward pass reads, without family names.

Structural fields have no default, so none is overlooked. Where variants exclude each other, or
later models will add more of them, a field holds a union (`Mask`, `AttentionExtra`, `MLP`,
`TimeMix`). Code that reads a union matches every case and ends in ``assert_never``: a new case
leaves the models without it alone, and the type checker names every place that must handle it.
Layers are data too: what differs from layer to layer is in that layer's value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mi_ref.config.attention import (
    Attention as Attention,
    AttentionExtra as AttentionExtra,
    Causal as Causal,
    Mask as Mask,
    QKNorm as QKNorm,
    ScoreCap as ScoreCap,
    Window as Window,
)
from mi_ref.config.norms import LayerNorm as LayerNorm, NormKind as NormKind, RMSNorm as RMSNorm

ActivationName: TypeAlias = Literal[
    "silu", "gelu", "gelu_tanh", "gelu_fast", "relu", "relu_squared"
]
"""``gelu`` is exact (erf), ``gelu_tanh`` its tanh approximation, ``gelu_fast`` that approximation
with a constant rounded to ten digits (GPT-NeoX-20B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedMLP:
    """``W_out(act(W_gate x) * W_in x)``."""

    d_mlp: int
    act_fn: ActivationName
    bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainMLP:
    """``W_out act(W_in x)``."""

    d_mlp: int
    act_fn: ActivationName
    bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """A mixture of gated MLPs: a router chooses a few for each token and weights their outputs."""

    n_experts: int
    n_active: int
    """Experts that a token passes through: those with the highest router scores."""
    renormalise: bool
    """Whether the weights of the chosen experts are rescaled to sum to one."""
    d_mlp: int
    act_fn: ActivationName


MLP: TypeAlias = GatedMLP | PlainMLP | Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One transformer block: attention and an MLP, which each add to the residual stream."""

    order: Literal["sequential", "parallel"]
    """Whether the MLP reads the stream after attention has written to it, or before."""
    ln1: NormKind | None
    """Norm of attention's input."""
    attn: Attention
    ln1_post: NormKind | None
    """Norm of attention's output."""
    ln2: NormKind | None
    """Norm of the MLP's input. In a parallel block, None means that the MLP reads what attention
    reads."""
    mlp: MLP
    ln2_post: NormKind | None
    """Norm of the MLP's output."""

    @property
    def mixer(self) -> Attention:
        """The part that moves information between positions, named as in `RecurrentLayer`."""
        return self.attn


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMix6:
    """Time mixing of RWKV-6: one matrix per head, which every position decays and adds to.

    ``S ← diag(decay) S + k vᵀ``, read before the update, plus a bonus for the position itself.
    Low-rank maps of the input set how much of the previous token enters each input.
    """

    n_heads: int
    d_head: int
    d_shift: int
    """Rank of the maps that set how much of the previous token enters."""
    d_decay: int
    """Rank of the map to the decay."""
    group_norm_eps: float
    """Epsilon of the norm of each head's output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMix7:
    """Time mixing of RWKV-7: the state also loses what it stores under a removal key.

    ``S ← diag(decay) S - (a kk) (kkᵀ S) + k vᵀ``, read after the update.
    """

    n_heads: int
    d_head: int
    d_decay: int
    """Rank of the map to the decay."""
    d_rate: int
    """Rank of the map to the in-context learning rate ``a``."""
    d_value: int | None
    """Rank of the map that sets how much of layer 0's values enters; None if none does."""
    d_gate: int
    """Rank of the map to the output gate."""
    group_norm_eps: float
    """Epsilon of the norm of each head's output."""


TimeMix: TypeAlias = TimeMix6 | TimeMix7


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMix:
    """``W_out act(W_in x)``, where `x` is mixed with the previous token's."""

    d_mlp: int
    act_fn: ActivationName
    gated: bool
    """Whether a sigmoid of another map of the input multiplies the output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentLayer:
    """One recurrent block: a state carried from token to token takes the place of attention."""

    ln1: LayerNorm
    """Norm of time mixing's input."""
    mixer: TimeMix
    ln2: LayerNorm
    """Norm of channel mixing's input."""
    mlp: ChannelMix


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How a config was arrived at: what a user should know about it beside the structure itself."""

    inferred: tuple[str, ...] = ()
    """What was inferred from the tensors of a model whose family is unknown, in sentences."""
    compat: str | None = None
    """The program whose deviations from HuggingFace were asked for (``"candle-mi"``)."""
    unread_config: tuple[str, ...] = ()
    """Unread keys of ``config.json`` that the caller allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A whole decoder-only language model.

    `layers` has the structure of each layer. Sizes of a single layer are repeated here under
    TransformerLens' names (`n_heads`, `d_head`, `d_mlp`, …): they are layer 0's.
    """

    model_type: str
    """The family, as in HuggingFace's ``config.json``. The forward pass never reads it."""
    d_model: int
    d_vocab: int
    n_ctx: int | None
    """Positions that the model was trained for, None if the checkpoint does not say. Rotary models
    run beyond them with a warning, recurrent models without one."""
    embed_scale: float | None
    """Multiplies the token embedding; None for no factor."""
    learned_positions: bool
    """Whether a learned embedding of the position is added to that of the token."""
    ln_embed: LayerNorm | None
    """Norm of the embedding, before the first block."""
    layers: tuple[Layer | RecurrentLayer, ...]
    ln_final: NormKind
    bias_unembed: bool
    softcap: float | None
    """Soft bound on the logits, ``softcap * tanh(logit / softcap)``; None for no bound."""
    tied: bool
    """Whether the unembedding is the transposed embedding."""
    reading: Reading = Reading()

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    @property
    def recurrent_layers(self) -> tuple[int, ...]:
        """The layers that keep a recurrent state, by number."""
        return tuple(n for n, layer in enumerate(self.layers) if isinstance(layer, RecurrentLayer))

    @property
    def recurrent(self) -> bool:
        """Whether all layers are recurrent, so that the model has no attention."""
        return all(isinstance(layer, RecurrentLayer) for layer in self.layers)

    @property
    def blocks(self) -> tuple[Layer, ...]:
        """The transformer layers; empty in a recurrent model."""
        return tuple(layer for layer in self.layers if isinstance(layer, Layer))

    @property
    def n_heads(self) -> int:
        """Query heads of layer 0, or heads of its state."""
        return self.layers[0].mixer.n_heads

    @property
    def n_key_value_heads(self) -> int:
        """Key and value heads of layer 0."""
        mixer = self.layers[0].mixer
        return mixer.n_key_value_heads if isinstance(mixer, Attention) else mixer.n_heads

    @property
    def d_head(self) -> int:
        """Width of a head of layer 0."""
        return self.layers[0].mixer.d_head

    @property
    def d_mlp(self) -> int:
        """Neurons of layer 0's MLP; in a mixture of experts, of each expert."""
        return self.layers[0].mlp.d_mlp

    @property
    def act_fn(self) -> str:
        """Activation function of layer 0's MLP."""
        return self.layers[0].mlp.act_fn

    @property
    def eps(self) -> float:
        """Epsilon of the final norm."""
        return self.ln_final.eps

    @property
    def normalization_type(self) -> str:
        """Kind of the final norm, in TransformerLens' words: ``"RMS"`` or ``"LN"``."""
        return "RMS" if isinstance(self.ln_final, RMSNorm) else "LN"

    @property
    def positional_embedding_type(self) -> str:
        """How positions enter, in TransformerLens' words; ``"none"`` for a recurrent model."""
        if self.recurrent:
            return "none"
        return "standard" if self.learned_positions else "rotary"

    @property
    def inferred(self) -> tuple[str, ...]:
        """What was inferred about a model whose family is unknown; see `Reading`."""
        return self.reading.inferred

    @property
    def compat(self) -> str | None:
        """The program whose deviations were asked for; see `Reading`."""
        return self.reading.compat

    @property
    def unread_config(self) -> tuple[str, ...]:
        """Unread keys of ``config.json`` that the caller allowed; see `Reading`."""
        return self.reading.unread_config
