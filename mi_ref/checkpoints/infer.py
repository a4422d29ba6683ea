"""A decoder for an unknown ``model_type``, if its structure can be inferred unambiguously.

Structure comes from the tensors (fused maps, biases, kinds of norm), numbers from the config
without any defaults; every key must be read and every tensor used. What no file can show is assumed
to be as in LLaMA, and reported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mi_ref.checkpoints.nearest import Fit, fit
from mi_ref.checkpoints.safetensors import TensorInfo
from mi_ref.config.decoder import (
    MLP,
    Attention,
    Causal,
    DecoderConfig,
    GatedMLP,
    LayerNorm,
    Mask,
    NormKind,
    PlainMLP,
    QKNorm,
    Reading,
    RMSNorm,
    Window,
)
from mi_ref.families import Family
from mi_ref.families.reading.config_file import HfConfig
from mi_ref.families.reading.inert_keys import ACTIVATIONS
from mi_ref.families.reading.llama_names import (
    ATTENTION,
    GATED,
    NORMS,
    QK_NORMS,
    SANDWICH,
    llama_like,
)
from mi_ref.families.reading.rope_keys import read_rope
from mi_ref.families.reading.transformer import block, score_cap, transformer
from mi_ref.families.reading.weight_names import Fused, WeightNames
from mi_ref.families.reading.window_keys import (
    masks,
    read_layer_types,
    read_mask,
    read_switched_masks,
)

LOOKALIKES = {
    "cohere": "rotates interleaved pairs and has norms without bias",
    "ernie4_5": "rotates interleaved pairs",
    "exaone4": "has layers without rotary embedding",
    "gemma": "may store the gains of norms minus one and scale the embedding",
    "glm": "rotates interleaved pairs",
    "helium": "rotates interleaved pairs",
    "olmo": "places its norms differently",
    "smollm3": "has layers without rotary embedding",
}
"""Prefixes of ``model_type`` whose files look like LLaMA's, and how their arithmetic differs."""

_ASSUMED = (
    "assumed, since no file shows it: rotary embedding rotates halves, norms store their gain, the"
    " embedding is not scaled"
)
_BLOCK = "model.layers.0."
_EPS = ("rms_norm_eps", "layer_norm_eps", "norm_epsilon", "norm_eps")
_ACTIVATION = ("hidden_act", "hidden_activation")


def lookalike(model_type: object) -> str | None:
    """Return how a type whose files look like LLaMA's differs from it, if that is known."""
    known = (key for key in LOOKALIKES if str(model_type).startswith(key))
    return next((LOOKALIKES[key] for key in known), None)


def inferred(raw: Mapping[str, Any], tensors: Mapping[str, TensorInfo] | None) -> Fit | None:
    """Return the fit to an inferred family; None if anything does not fit.

    Parameters
    ----------
    raw : mapping
        The parsed ``config.json``.
    tensors : mapping or None
        The tensors' headers; None if they cannot be read.
    """
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or tensors is None:
        return None
    if lookalike(model_type) is not None:
        return None
    found = fit(_Guess(model_type, tensors).family(), raw, tensors)
    return found if len(found) == 0 else None


class _Guess:
    """The structure that the tensors of the first block imply."""

    def __init__(self, model_type: str, tensors: Mapping[str, TensorInfo]) -> None:
        self.model_type = model_type
        self.tensors = tensors
        self.fused_qkv = self.has("self_attn.qkv_proj.weight")
        self.fused_mlp = self.has("mlp.gate_up_proj.weight")
        self.plain = self.has("mlp.c_fc.weight")
        self.sandwich = self.has("post_feedforward_layernorm.weight")
        self.pre = self.has("input_layernorm.weight")
        self.qk_norm = self.has("self_attn.q_norm.weight")
        norms = "input_layernorm.bias", "post_attention_layernorm.bias"
        self.layer_norm = any(map(self.has, norms))

    def has(self, path: str) -> bool:
        """Whether the first block has a tensor."""
        return f"{_BLOCK}{path}" in self.tensors

    def biased(self, *paths: str) -> bool:
        """Whether any of the first block's modules has a bias."""
        return any(self.has(f"{path}.bias") for path in paths)

    def family(self) -> Family:
        """Return a family that reads configs with this structure."""
        return Family(self.model_type, self.read_config, self.weight_names())

    def weight_names(self) -> WeightNames:
        """Return the names of the modules."""
        fused = []
        if self.fused_qkv:
            slots = ("query", "key", "value")
            fused.append(Fused(path="self_attn.qkv_proj", slots=slots, per_head=False))
        if self.fused_mlp:
            slots_of_mlp = ("mlp_gate", "mlp_in")
            fused.append(Fused(path="mlp.gate_up_proj", slots=slots_of_mlp, per_head=False))
        mlp = {"mlp_in": "mlp.c_fc", "mlp_out": "mlp.c_proj"} if self.plain else GATED
        norms = SANDWICH if self.sandwich else NORMS
        return llama_like(ATTENTION, QK_NORMS, norms, mlp, fused=tuple(fused))

    def sentences(self) -> tuple[str, ...]:
        """Return what was inferred, in sentences."""
        kind = "layer norms" if self.layer_norm else "RMS norms"
        place = "before" if not self.sandwich else ("around" if self.pre else "after")
        qkv = "in one tensor" if self.fused_qkv else "in separate tensors"
        mlp = "plain" if self.plain else "gated, in one tensor" if self.fused_mlp else "gated"
        return (
            f"{kind} {place} attention and MLP",
            f"query, key and value {qkv}, {'with' if self._bias_qkv() else 'without'} biases",
            f"queries and keys {'normed' if self.qk_norm else 'not normed'}",
            f"MLP {mlp}",
            _ASSUMED,
        )

    def _bias_qkv(self) -> bool:
        return self.biased("self_attn.q_proj", "self_attn.qkv_proj")

    def read_config(self, read: HfConfig) -> DecoderConfig:
        """Return the decoder; only keys that turn something on have a default."""
        d_model = read.integer("hidden_size")
        n_heads = read.integer("num_attention_heads")
        n_layers = read.integer("num_hidden_layers")
        n_ctx = read.integer("max_position_embeddings")
        norm = self._norm(read)
        pre, post = norm if self.pre else None, norm if self.sandwich else None
        attn = self._attention(read, d_model, n_heads, n_ctx, norm)
        tied = read.flag("tie_word_embeddings", "lm_head.weight" not in self.tensors)
        mlp = self._mlp(read)
        read.require(
            not (tied and isinstance(mlp, GatedMLP) and mlp.act_fn.startswith("gelu")),
            "tied embeddings and MLPs gated by GELU suggest Gemma, whose norms store their gain"
            " minus one and whose embedding is scaled; no file shows whether that holds here",
        )
        layers = tuple(
            block(replace(attn, mask=mask), mlp, before=pre, after=post)
            for mask in _masks(read, n_layers)
        )
        for key in ("attention_bias", "mlp_bias", "use_bias"):
            read.flag(key, False)  # The tensors show it.
        read.only("is_causal", (True,), "attention is causal here")
        read.only("pretraining_tp", range(1, 65), "expected a number of slices from 1 to 64")
        read.only("norm_type", ("layer_norm",), "its meaning here is unknown")
        read.only("mlp_type", ("default",), "its meaning here is unknown")
        decoder = transformer(
            model_type=self.model_type,
            d_model=d_model,
            d_vocab=read.integer("vocab_size"),
            n_ctx=n_ctx,
            layers=layers,
            ln_final=norm,
            bias_unembed="lm_head.bias" in self.tensors,
            softcap=read.optional("final_logit_softcapping", None),
            tied=tied,
        )
        return replace(decoder, reading=Reading(inferred=self.sentences()))

    def _norm(self, read: HfConfig) -> NormKind:
        eps = read.number(next((key for key in _EPS if read.has(key)), _EPS[0]))
        return LayerNorm(eps=eps) if self.layer_norm else RMSNorm(eps=eps, unit_offset=False)

    def _attention(
        self, read: HfConfig, d_model: int, n_heads: int, n_ctx: int, norm: NormKind
    ) -> Attention:
        d_head = read.head_width("head_dim", d_model, n_heads)
        rope = read.section("rope_parameters")
        read.require(
            read.has("rope_theta") or "rope_theta" in rope,
            "rope_theta is missing; without a known family it has no default",
        )
        gain = self.tensors.get(f"{_BLOCK}self_attn.q_norm.weight")
        qk_norm = () if gain is None else (QKNorm(norm=norm, per_head=gain.shape == (d_head,)),)
        cap = score_cap(read.optional("attn_logit_softcapping", None))
        return Attention(
            n_heads=n_heads,
            n_key_value_heads=read.groups("num_key_value_heads", n_heads),
            d_head=d_head,
            scale=read.number("query_pre_attn_scalar", d_head) ** -0.5,
            mask=Causal(),
            rotary=read_rope(
                read,
                n_ctx=n_ctx,
                d_head=d_head,
                default_theta=1.0,
                partial_key="partial_rotary_factor",
            ),
            extras=(*qk_norm, *cap),
            bias_qkv=self._bias_qkv(),
            bias_out=self.biased("self_attn.o_proj"),
        )

    def _mlp(self, read: HfConfig) -> MLP:
        kind = PlainMLP if self.plain else GatedMLP
        key = next((key for key in _ACTIVATION if read.has(key)), _ACTIVATION[0])
        for other in _ACTIVATION:
            if other != key and read.has(other):
                read.only(other, (), f"{key} is given as well, and it is unknown which one applies")
        names = ("mlp.down_proj", "mlp.c_fc", "mlp.gate_up_proj")
        return kind(
            d_mlp=read.integer("intermediate_size"),
            act_fn=read.choice(key, ACTIVATIONS),
            bias=self.biased(*names),
        )


def _masks(read: HfConfig, n_layers: int) -> tuple[Mask, ...]:
    if read.has("use_sliding_window"):
        return read_switched_masks(read, n_layers)
    sliding = read_mask(read, None)
    types = read_layer_types(read, n_layers, lambda _: isinstance(sliding, Window))
    return masks(read, types, sliding)
