"""What a decoder is, as data: structural variants that the forward pass reads, no family names.

No field has a default: every family states every axis, so a new axis makes each family's author
look. Layers are data too: what differs from layer to layer stands in that layer's value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mi_ref.rope import Rotary

ActivationName: TypeAlias = Literal[
    "silu", "gelu", "gelu_tanh", "gelu_fast", "relu", "relu_squared"
]
"""``gelu`` is the exact one (erf), ``gelu_tanh`` its tanh approximation, ``gelu_fast`` that with a
constant of ten digits (GPT-NeoX-20B)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSNorm:
    """``x / sqrt(mean(x²) + eps) * gain``."""

    eps: float
    unit_offset: bool
    """Whether checkpoints store ``gain - 1``; `mi_ref.params` holds the gain itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNorm:
    """``(x - mean(x)) / sqrt(var(x) + eps) * gain + bias``."""

    eps: float


NormKind: TypeAlias = RMSNorm | LayerNorm


@dataclass(frozen=True, slots=True, kw_only=True)
class QKNorm:
    """A norm of queries and one of keys, between projection and rotary embedding."""

    norm: NormKind
    per_head: bool
    """Whether each head is normed by itself, or the whole projection at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Causal self-attention of one layer."""

    n_heads: int
    n_key_value_heads: int
    """Key and value heads; each serves ``n_heads / n_key_value_heads`` successive query heads."""
    d_head: int
    scale: float
    """Multiplies q·k; ``1/sqrt(d_head)`` unless the family says otherwise."""
    softcap: float | None
    """Bound on a score, ``softcap * tanh(score / softcap)``, before the mask; None for none."""
    window: int | None
    """Keys that a query sees, itself included; None for all up to itself."""
    rotary: Rotary | None
    """None: positions come from elsewhere."""
    qk_norm: QKNorm | None
    bias_qkv: bool
    bias_out: bool


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
    """Gated MLPs of which each token goes through a few, weighted by a router."""

    n_experts: int
    n_active: int
    """Experts that a token goes through: those the router scores highest."""
    renormalise: bool
    """Whether the weights of the chosen experts are made to sum to one."""
    d_mlp: int
    act_fn: ActivationName


MLP: TypeAlias = GatedMLP | PlainMLP | Experts


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block: attention and an MLP that each add to the residual stream."""

    order: Literal["sequential", "parallel"]
    """Whether the MLP reads the stream after attention wrote to it, or the same as attention."""
    ln1: NormKind | None
    """Of what attention reads."""
    attn: Attention
    ln1_post: NormKind | None
    """Of what attention writes."""
    ln2: NormKind | None
    """Of what the MLP reads. None in a parallel block: the MLP reads what attention reads."""
    mlp: MLP
    ln2_post: NormKind | None
    """Of what the MLP writes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMix6:
    """Time mixing of RWKV-6: a matrix per head that each position decays, and adds to.

    ``S ← diag(decay) S + k vᵀ``, read before it is updated, with a bonus for the position itself.
    How much of the token before enters each input depends on the input, through a low-rank map.
    """

    n_heads: int
    d_head: int
    d_shift: int
    """Rank of the maps that say how much of the token before enters."""
    d_decay: int
    """Rank of the map to the decay."""
    group_norm_eps: float
    """Of the norm of each head's output."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeMix7:
    """Time mixing of RWKV-7: the state also loses what it holds under a removal key.

    ``S ← diag(decay) S - (a kk) (kkᵀ S) + k vᵀ``, read after it is updated.
    """

    n_heads: int
    d_head: int
    d_decay: int
    """Rank of the map to the decay."""
    d_rate: int
    """Rank of the map to the in-context learning rate ``a``."""
    d_value: int | None
    """Rank of the map that says how much of layer 0's values enters; None: none does."""
    d_gate: int
    """Rank of the map to the output gate."""
    group_norm_eps: float
    """Of the norm of each head's output."""


TimeMix: TypeAlias = TimeMix6 | TimeMix7


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelMix:
    """``W_out act(W_in x)``, where `x` is mixed with that of the token before."""

    d_mlp: int
    act_fn: ActivationName
    gated: bool
    """Whether the output is multiplied with a sigmoid of another map of the input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecurrentLayer:
    """One block that hands a state from token to token in place of attention."""

    ln1: LayerNorm
    """Of what time mixing reads."""
    attn: TimeMix
    ln2: LayerNorm
    """Of what channel mixing reads."""
    mlp: ChannelMix


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A whole decoder-only language model.

    The sizes that all layers share have TransformerLens' names; `layers` has the rest.
    """

    model_type: str
    """The family, as in HuggingFace's ``config.json``. For people: the forward pass never asks."""
    d_model: int
    d_vocab: int
    n_ctx: int | None
    """Positions the model was made for; rotary models run beyond it, with a warning, and recurrent
    ones without. None if the checkpoint does not say."""
    embed_scale: float | None
    """Multiplies the token embedding; None for one."""
    learned_positions: bool
    """Whether an embedding of the position is added to that of the token."""
    ln_embed: LayerNorm | None
    """Of the embedding, before the first block."""
    layers: tuple[Layer | RecurrentLayer, ...]
    ln_final: NormKind
    bias_unembed: bool
    softcap: float | None
    """Bound on a logit, ``softcap * tanh(logit / softcap)``; None for none."""
    tied: bool
    """Whether the unembedding is the embedding, transposed."""
    inferred: tuple[str, ...]
    """What was inferred from tensors, of a model whose family is unknown; empty otherwise."""
    compat: str | None
    """Whose deviations from HuggingFace were asked for (``"candle-mi"``); None for nobody's."""
    unread_config: tuple[str, ...]
    """Keys of ``config.json`` that the caller allowed to go unread; empty unless asked for."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        return len(self.layers)

    @property
    def recurrent(self) -> bool:
        """Whether blocks hand on a state instead of attending."""
        return isinstance(self.layers[0], RecurrentLayer)

    @property
    def blocks(self) -> tuple[Layer, ...]:
        """The layers of a transformer; empty in a recurrent model."""
        return tuple(layer for layer in self.layers if isinstance(layer, Layer))

    @property
    def n_heads(self) -> int:
        """Query heads, or heads of the state, of each layer."""
        return self.layers[0].attn.n_heads

    @property
    def n_key_value_heads(self) -> int:
        """Key and value heads of each layer."""
        attn = self.layers[0].attn
        return attn.n_key_value_heads if isinstance(attn, Attention) else attn.n_heads

    @property
    def d_head(self) -> int:
        """Width of a head."""
        return self.layers[0].attn.d_head

    @property
    def d_mlp(self) -> int:
        """Neurons of each MLP; in a mixture of experts, of each expert."""
        return self.layers[0].mlp.d_mlp

    @property
    def act_fn(self) -> str:
        """Activation function of the MLPs."""
        return self.layers[0].mlp.act_fn

    @property
    def eps(self) -> float:
        """What the norms add to the mean square."""
        return self.ln_final.eps

    @property
    def normalization_type(self) -> str:
        """TransformerLens' word for the kind of norm."""
        return "RMS" if isinstance(self.ln_final, RMSNorm) else "LN"

    @property
    def positional_embedding_type(self) -> str:
        """TransformerLens' word for how positions enter; ``"none"`` for a recurrent model."""
        if self.recurrent:
            return "none"
        return "standard" if self.learned_positions else "rotary"
