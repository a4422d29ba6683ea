"""What a decoder is, as data: structural variants that the forward pass reads, no family names.

No field has a default: every family states every axis, so a new axis makes each family's author
look. Layers are data too: what differs from layer to layer stands in that layer's value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mi_ref.rope import Rotary

ActivationName: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "gelu_fast", "relu"]
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
class DecoderConfig:
    """A whole decoder-only transformer.

    The sizes that all layers share have TransformerLens' names; `layers` has the rest.
    """

    model_type: str
    """The family, as in HuggingFace's ``config.json``. For people: the forward pass never asks."""
    d_model: int
    d_vocab: int
    n_ctx: int
    """Positions the model was made for; rotary models run beyond it, with a warning."""
    embed_scale: float | None
    """Multiplies the token embedding; None for one."""
    learned_positions: bool
    """Whether an embedding of the position is added to that of the token."""
    layers: tuple[Layer, ...]
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
    def n_heads(self) -> int:
        """Query heads of each layer."""
        return self.layers[0].attn.n_heads

    @property
    def n_key_value_heads(self) -> int:
        """Key and value heads of each layer."""
        return self.layers[0].attn.n_key_value_heads

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
        """TransformerLens' word for how positions enter."""
        return "standard" if self.learned_positions else "rotary"
