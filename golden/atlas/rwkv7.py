"""RWKV-7 in torch, for training on a CPU.

The modules have the names of flash-linear-attention's checkpoints, so that a state dict is a
checkpoint. The initial values are those of RWKV-LM, except for the embedding and the head.

Sources: RWKV-7 "Goose" (arXiv 2503.14456); BlinkDL's RWKV-LM for the start values;
flash-linear-attention for the names.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, pad

from .rwkv7_state import DECAY_FLOOR, Drive, read_all

EMBEDDING_SPREAD = 0.05


class LowRank(nn.Module):
    """A low-rank map, initially zero except for its bias."""

    def __init__(self, width: int, rank: int, middle: nn.Module, bias: Tensor | None) -> None:
        super().__init__()
        narrow, widen = nn.Linear(width, rank, bias=False), nn.Linear(rank, width, bias=False)
        nn.init.zeros_(narrow.weight)
        nn.init.orthogonal_(widen.weight, gain=0.1)
        if bias is not None:
            widen.bias = nn.Parameter(bias)
        self.lora = nn.Sequential(narrow, middle, widen)

    def forward(self, x: Tensor) -> Tensor:
        return self.lora(x)


def _linear(n_in: int, n_out: int, gain: float) -> nn.Linear:
    linear = nn.Linear(n_in, n_out, bias=False)
    nn.init.orthogonal_(linear.weight, gain=gain)
    return linear


def _mixing(width: int, power: float) -> nn.Parameter:
    """How much of the place before goes into each coordinate: all of it in the first."""
    return nn.Parameter((1 - (torch.arange(width) / width) ** power)[None, None])


def _previous_minus(x: Tensor) -> Tensor:
    """What has to be added to each place to make it the place before, which is 0 at first."""
    return pad(x, (0, 0, 1, -1)) - x


class TimeMix(nn.Module):
    """The part of a layer that looks back, through the state of its heads."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        super().__init__()
        width, self.d_head = config["hidden_size"], config["head_dim"]
        height = 1 - index / config["num_hidden_layers"]
        self.x_r, self.x_g = _mixing(width, 0.2 * height), _mixing(width, 0.2 * height)
        self.x_k, self.x_v = _mixing(width, 0.7 * height), _mixing(width, 0.7 * height)
        self.x_w, self.x_a = _mixing(width, 0.9 * height), _mixing(width, 0.9 * height)
        rise = torch.arange(width) / (width - 1)
        zigzag = (torch.arange(width) % self.d_head) * 2 / (self.d_head - 1) - 1
        zigzag = zigzag * zigzag.abs()
        depth = index / (config["num_hidden_layers"] - 1)
        decay = 6 * rise ** (1 + depth**0.3) - 5.5 + 2.5 * zigzag
        self.w_lora = LowRank(width, config["decay_low_rank_dim"], nn.Tanh(), decay)
        rate = 0.3 * zigzag + 0.4 * (rise - 0.5) - 0.19
        self.a_lora = LowRank(width, config["a_low_rank_dim"], nn.Identity(), rate)
        if index:
            share = 0.73 - 0.4 * (rise - 0.5)
            self.v_lora = LowRank(width, config["v_low_rank_dim"], nn.Identity(), share)
        self.g_lora = LowRank(width, config["gate_low_rank_dim"], nn.Sigmoid(), None)
        self.k_k = nn.Parameter(0.71 - 0.1 * (rise - 0.5))
        self.k_a = nn.Parameter(torch.full((width,), 1.02))
        self.r_k = nn.Parameter(torch.full((config["num_heads"], self.d_head), -0.04))
        self.r_proj = _linear(width, width, 1.0)
        self.k_proj = _linear(width, width, 0.1)
        self.v_proj = _linear(width, width, 1.0)
        self.o_proj = _linear(width, width, 0.0)
        self.g_norm = nn.GroupNorm(config["num_heads"], width, eps=config["group_norm_eps"])
        nn.init.constant_(self.g_norm.weight, ((index + 1) / config["num_hidden_layers"]) ** 0.7)

    def forward(self, x: Tensor, first_value: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return what is added to the stream, and the values of layer 0."""
        delta = _previous_minus(x)
        query = self._heads(self.r_proj(torch.addcmul(x, delta, self.x_r)))
        key = self.k_proj(torch.addcmul(x, delta, self.x_k))
        for_value = torch.addcmul(x, delta, self.x_v)
        value = self.v_proj(for_value)
        if first_value is None:
            first_value = value
        else:
            value = torch.lerp(value, first_value, self.v_lora(for_value).sigmoid())
        rate = self.a_lora(torch.addcmul(x, delta, self.x_a)).sigmoid()
        decay = self.w_lora(torch.addcmul(x, delta, self.x_w)).sigmoid()
        gate = self.g_lora(torch.addcmul(x, delta, self.x_g))
        look = normalize(self._heads(key * self.k_k), dim=-1)
        key = self._heads(key * (1 + (rate - 1) * self.k_a))
        drive = Drive(
            query,
            self._heads(DECAY_FLOOR * decay),
            key,
            self._heads(value),
            look,
            look * self._heads(rate),
        )
        bonus = (query * key * self.r_k[:, None]).sum(-1, keepdim=True) * drive.value
        mixed = self.g_norm(self._join(read_all(drive)).flatten(0, 1)).view_as(x)
        return self.o_proj((mixed + self._join(bonus)) * gate), first_value

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (-1, self.d_head)).transpose(1, 2)

    def _join(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class ChannelMix(nn.Module):
    """The part of a layer that works at one place and the one before it."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        super().__init__()
        width, inner = config["hidden_size"], config["intermediate_size"]
        height = 1 - index / config["num_hidden_layers"]
        self.x_k = nn.Parameter(_mixing(width, height**4).detach().flatten())
        self.key = _linear(width, inner, 1.0)
        self.value = _linear(inner, width, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Return what is added to the stream."""
        return self.value(self.key(torch.addcmul(x, _previous_minus(x), self.x_k)).relu().square())


class Layer(nn.Module):
    """Time mix, then channel mix, each on the normed stream."""

    def __init__(self, config: dict[str, Any], index: int) -> None:
        super().__init__()
        width, eps = config["hidden_size"], config["norm_eps"]
        norm_first = index == 0 and config["norm_first"]
        self.pre_norm = nn.LayerNorm(width, eps=eps) if norm_first else None
        self.attn_norm = nn.LayerNorm(width, eps=eps)
        self.ffn_norm = nn.LayerNorm(width, eps=eps)
        self.attn = TimeMix(config, index)
        self.ffn = ChannelMix(config, index)

    def forward(self, x: Tensor, first_value: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the stream after the layer, and the values of layer 0."""
        added, first_value = self.attn(self.attn_norm(x), first_value)
        x = x + added
        return x + self.ffn(self.ffn_norm(x)), first_value


class Body(nn.Module):
    """Everything but the head."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(config["vocab_size"], config["hidden_size"])
        nn.init.normal_(self.embeddings.weight, std=EMBEDDING_SPREAD)
        layers = [Layer(config, index) for index in range(config["num_hidden_layers"])]
        self.layers: Any = nn.ModuleList(layers)
        self.norm = nn.LayerNorm(config["hidden_size"], eps=config["norm_eps"])

    def forward(self, input_ids: Tensor) -> list[Tensor]:
        """Return the stream before each layer, and after the last with its norm."""
        stream = self.embeddings(input_ids)
        pre_norm = self.layers[0].pre_norm
        if pre_norm is not None:
            stream = pre_norm(stream)
        states, first_value = [], None
        for layer in self.layers:
            states.append(stream)
            stream, first_value = layer(stream, first_value)
        return [*states, self.norm(stream)]


class Output(NamedTuple):
    """What the model returns, named as transformers names it."""

    logits: Tensor
    hidden_states: list[Tensor]
    """See `Body.forward`; empty unless asked for."""


class Rwkv7(nn.Module):
    """The whole model, from a ``config.json`` with the keys of flash-linear-attention."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.model = Body(config)
        self.lm_head = nn.Linear(config["hidden_size"], config["vocab_size"], bias=False)
        # RWKV-LM starts both apart, and then it has to be learned token by token that what a head
        # carries over from an embedding should raise that token's logit.
        with torch.no_grad():
            self.lm_head.weight.copy_(self.model.embeddings.weight)

    def forward(self, input_ids: Tensor, output_hidden_states: bool = False) -> Output:
        """Compute logits of shape ``(batch, places, vocab_size)``, and on request the states."""
        states = self.model(input_ids)
        return Output(self.lm_head(states[-1]), states if output_hidden_states else [])
