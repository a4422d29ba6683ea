"""A decoder for a ``model_type`` that nobody wrote a family for, where its files leave no doubt.

Structure is read off the tensors (fused maps, biases, kinds of norm), numbers off the config, with
no default for any of them; every key must be read and every tensor used. What no file can show is
assumed as in LLaMA and said so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mi_ref.config import (
    MLP,
    Attention,
    DecoderConfig,
    GatedMLP,
    Layer,
    LayerNorm,
    NormKind,
    PlainMLP,
    QKNorm,
    RMSNorm,
)
from mi_ref.families import Family
from mi_ref.families.names import ATTENTION, GATED, NORMS, QK_NORMS, SANDWICH, llama_like
from mi_ref.fitting import Fit, fit
from mi_ref.hf_config import HfConfig
from mi_ref.hf_keys import ACTIVATIONS
from mi_ref.layer_types import (
    read_layer_types,
    read_switched_windows,
    read_window,
    windows,
)
from mi_ref.rope_config import read_rope
from mi_ref.weight_names import Fused, WeightNames
from mi_ref.weights import TensorInfo

LOOKALIKES = {
    "cohere": "rotates interleaved pairs and norms without bias",
    "ernie4_5": "rotates interleaved pairs",
    "exaone4": "leaves some layers without rotary embedding",
    "gemma": "may store norms' gains less one and scale the embedding",
    "glm": "rotates interleaved pairs",
    "helium": "rotates interleaved pairs",
    "olmo": "places its norms in its own way",
    "smollm3": "leaves some layers without rotary embedding",
}
"""Beginnings of ``model_type`` whose files look like LLaMA's and whose arithmetic is another."""

_ASSUMED = (
    "assumed, since no file shows it: rotary embedding turns halves, norms store their gain, the"
    " embedding is not scaled"
)
_BLOCK = "model.layers.0."
_EPS = ("rms_norm_eps", "layer_norm_eps", "norm_epsilon", "norm_eps")
_ACTIVATION = ("hidden_act", "hidden_activation")


def lookalike(model_type: object) -> str | None:
    """Return in what a type whose files look like LLaMA's differs from it, if that is known."""
    known = (key for key in LOOKALIKES if str(model_type).startswith(key))
    return next((LOOKALIKES[key] for key in known), None)


def inferred(raw: Mapping[str, Any], tensors: Mapping[str, TensorInfo] | None) -> Fit | None:
    """Return the fit to an inferred family; None if anything at all does not fit.

    Parameters
    ----------
    raw : mapping
        The parsed ``config.json``.
    tensors : mapping or None
        The headers; None if they cannot be read.
    """
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or tensors is None:
        return None
    if lookalike(model_type) is not None:
        return None
    found = fit(_Guess(model_type, tensors).family(), raw, tensors)
    return found if len(found) == 0 else None


class _Guess:
    """What the tensors of the first block say."""

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
        """Return a family that reads configs accordingly."""
        return Family(self.model_type, self.read_config, self.weight_names())

    def weight_names(self) -> WeightNames:
        """Return where the modules are."""
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
        """Say what was inferred."""
        kind = "layer norms" if self.layer_norm else "RMS norms"
        place = "before" if not self.sandwich else ("around" if self.pre else "after")
        qkv = "in one tensor" if self.fused_qkv else "apart"
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
        """Return the decoder; no key has a default but those that turn something on."""
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
            "gates of GELU with tied embeddings are Gemma's, whose norms store their gain less one"
            " and whose embedding is scaled: which of the two this is, no file shows",
        )
        layer = Layer(
            order="sequential",
            ln1=pre,
            attn=attn,
            ln1_post=post,
            ln2=pre,
            mlp=mlp,
            ln2_post=post,
        )
        for key in ("attention_bias", "mlp_bias", "use_bias"):
            read.flag(key, False)  # The tensors say it.
        read.only("is_causal", (True,), "this forward pass lets no query see a later key")
        read.only("pretraining_tp", range(1, 65), "it should be a number of slices")
        read.only("norm_type", ("layer_norm",), "what that means here is unknown")
        read.only("mlp_type", ("default",), "what that means here is unknown")
        return DecoderConfig(
            model_type=self.model_type,
            d_model=d_model,
            d_vocab=read.integer("vocab_size"),
            n_ctx=n_ctx,
            embed_scale=None,
            learned_positions=False,
            ln_embed=None,
            layers=tuple(
                replace(layer, attn=replace(attn, window=window))
                for window in _windows(read, n_layers)
            ),
            ln_final=norm,
            bias_unembed="lm_head.bias" in self.tensors,
            softcap=read.optional("final_logit_softcapping", None),
            tied=tied,
            inferred=self.sentences(),
            compat=None,
            unread_config=(),
        )

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
            "rope_theta is missing, and an unknown family has no default for it",
        )
        width = self.tensors.get(f"{_BLOCK}self_attn.q_norm.weight")
        per_head = width is not None and width.shape == (d_head,)
        return Attention(
            n_heads=n_heads,
            n_key_value_heads=read.groups("num_key_value_heads", n_heads),
            d_head=d_head,
            scale=read.number("query_pre_attn_scalar", d_head) ** -0.5,
            softcap=read.optional("attn_logit_softcapping", None),
            window=None,
            rotary=read_rope(
                read,
                n_ctx=n_ctx,
                d_head=d_head,
                default_theta=1.0,
                partial_key="partial_rotary_factor",
            ),
            qk_norm=QKNorm(norm=norm, per_head=per_head) if self.qk_norm else None,
            bias_qkv=self._bias_qkv(),
            bias_out=self.biased("self_attn.o_proj"),
        )

    def _mlp(self, read: HfConfig) -> MLP:
        kind = PlainMLP if self.plain else GatedMLP
        key = next((key for key in _ACTIVATION if read.has(key)), _ACTIVATION[0])
        for other in _ACTIVATION:
            if other != key and read.has(other):
                read.only(other, (), f"{key} is given too; which one counts is unknown")
        names = ("mlp.down_proj", "mlp.c_fc", "mlp.gate_up_proj")
        return kind(
            d_mlp=read.integer("intermediate_size"),
            act_fn=read.choice(key, ACTIVATIONS),
            bias=self.biased(*names),
        )


def _windows(read: HfConfig, n_layers: int) -> tuple[int | None, ...]:
    if read.has("use_sliding_window"):
        return read_switched_windows(read, n_layers)
    window = read_window(read, None)
    types = read_layer_types(read, n_layers, lambda _: window is not None)
    return windows(read, types, window)
