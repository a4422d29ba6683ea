"""What a decoder is, as data: structural variants that the forward pass reads, no family names.

No field has a default: every family states every axis, so a new axis makes each family's author
look. Layers are data too: what differs from layer to layer stands in that layer's value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from mi_ref.rope import Rope

ActivationName: TypeAlias = Literal["silu", "gelu", "gelu_tanh", "relu"]
"""``gelu`` is the exact one (erf), ``gelu_tanh`` its tanh approximation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RMSNorm:
    """``x / sqrt(mean(x²) + eps) * weight``, the mean over ``d_model``."""

    eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Attention:
    """Causal self-attention of one layer."""

    n_heads: int
    n_key_value_heads: int
    """Key and value heads; each serves ``n_heads / n_key_value_heads`` successive query heads."""
    d_head: int
    scale: float
    """Multiplies q·k; ``1/sqrt(d_head)`` unless the family says otherwise."""
    rope: Rope
    bias_qkv: bool
    bias_out: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedMLP:
    """``W_out(act(W_gate x) * W_in x)``."""

    d_mlp: int
    act_fn: ActivationName
    bias: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One block: attention, then MLP, each reading a normed residual stream and adding to it."""

    norm: RMSNorm
    attn: Attention
    mlp: GatedMLP


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
    layers: tuple[Layer, ...]
    ln_final: RMSNorm
    tied: bool
    """Whether the unembedding is the embedding, transposed."""
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
        """Neurons of each MLP."""
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
        return "RMS"
