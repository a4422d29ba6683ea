"""A model's weights in TransformerLens' axis order: views, never copies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, overload

from mi_ref._typing import Array, Float
from mi_ref.backend import Backend
from mi_ref.compute import Compute
from mi_ref.config.decoder import DecoderConfig
from mi_ref.errors import WeightError
from mi_ref.params.params import (
    ChannelMixParams,
    DecoderParams,
    ExpertsParams,
    LayerParams,
    Linear,
    MLPParams,
    RecurrentLayerParams,
)


class LayerWeights(Sequence[Array]):
    """One weight of every layer; ``w[3]`` is layer 3's, ``w[3, 5]`` its head 5.

    TransformerLens stacks the layers into one array, which takes as much memory again; this is a
    view on the weights in place. `stack` makes that array.

    Parameters
    ----------
    views : sequence of callables
        Each returns its layer's view.
    backend : Backend
        The library that holds the arrays.
    """

    def __init__(self, views: Sequence[Callable[[], Array]], backend: Backend) -> None:
        self._views = views
        self._backend = backend

    @overload
    def __getitem__(self, index: int) -> Array: ...
    @overload
    def __getitem__(self, index: slice) -> LayerWeights: ...
    @overload
    def __getitem__(self, index: tuple[Any, ...]) -> Array: ...
    def __getitem__(self, index: int | slice | tuple[Any, ...]) -> Any:
        if isinstance(index, slice):
            return LayerWeights(self._views[index], self._backend)
        if isinstance(index, tuple):
            return self._views[index[0]]()[index[1:]]
        return self._views[index]()

    def __len__(self) -> int:
        return len(self._views)

    @property
    def shape(self) -> tuple[int, ...]:
        """As if stacked: layers first."""
        return (len(self), *self[0].shape)

    def stack(self) -> Array:
        """Return one array with layers as its first axis: a copy of all of them."""
        return self._backend.xp.stack(list(self))

    def __repr__(self) -> str:
        return f"<weights of {len(self)} layers, each {tuple(self[0].shape)}>"


class WeightViews:
    """``W_Q`` and so on. Biases that the model does not have are zeros, as in TransformerLens."""

    __slots__ = ()

    cfg: DecoderConfig
    params: DecoderParams
    backend: Backend
    compute: Compute

    @property
    def W_E(self) -> Float[Array, "d_vocab d_model"]:
        """Embedding."""
        return self.params.embed

    @property
    def W_U(self) -> Float[Array, "d_model d_vocab"]:
        """Unembedding."""
        return self.params.unembed.weight.mT

    @property
    def b_U(self) -> Float[Array, " d_vocab"]:
        """Bias of the unembedding."""
        return self._bias(self.params.unembed)

    @property
    def W_pos(self) -> Float[Array, "n_ctx d_model"]:
        """Learned embedding of each position."""
        if self.params.pos_embed is None:
            how = "are in its state" if self.cfg.recurrent else "enter by rotation"
            raise WeightError(f"this model has no W_pos: its positions {how}.")
        return self.params.pos_embed

    @property
    def W_Q(self) -> LayerWeights:
        """Query weights, each layer ``[head, d_model, d_head]``."""
        return self._by_layer(lambda w: self._heads_out(_attention(w).query))

    @property
    def W_K(self) -> LayerWeights:
        """Key weights, each layer ``[kv_head, d_model, d_head]``; not repeated for groups."""
        return self._by_layer(lambda w: self._heads_out(_attention(w).key))

    @property
    def W_V(self) -> LayerWeights:
        """Value weights, each layer ``[kv_head, d_model, d_head]``; not repeated for groups."""
        return self._by_layer(lambda w: self._heads_out(_attention(w).value))

    @property
    def W_O(self) -> LayerWeights:
        """Output weights, each layer ``[head, d_head, d_model]``."""
        return self._by_layer(lambda w: self._heads_in(_attention(w).out))

    @property
    def W_gate(self) -> LayerWeights:
        """Gate weights of the MLP, each layer ``[d_model, d_mlp]``."""
        return self._by_layer(lambda w: _gate(w).weight.mT)

    @property
    def W_in(self) -> LayerWeights:
        """Up weights of the MLP, each layer ``[d_model, d_mlp]``."""
        return self._by_layer(lambda w: _mlp(w).into.weight.mT)

    @property
    def W_out(self) -> LayerWeights:
        """Down weights of the MLP, each layer ``[d_mlp, d_model]``."""
        return self._by_layer(lambda w: _mlp(w).out.weight.mT)

    @property
    def b_Q(self) -> LayerWeights:
        """Query biases, each layer ``[head, d_head]``."""
        return self._by_layer(lambda w: self._per_head(self._bias(_attention(w).query)))

    @property
    def b_K(self) -> LayerWeights:
        """Key biases, each layer ``[kv_head, d_head]``."""
        return self._by_layer(lambda w: self._per_head(self._bias(_attention(w).key)))

    @property
    def b_V(self) -> LayerWeights:
        """Value biases, each layer ``[kv_head, d_head]``."""
        return self._by_layer(lambda w: self._per_head(self._bias(_attention(w).value)))

    @property
    def b_O(self) -> LayerWeights:
        """Output biases of attention, each layer ``[d_model]``."""
        return self._by_layer(lambda w: self._bias(_attention(w).out))

    @property
    def b_gate(self) -> LayerWeights:
        """Gate biases of the MLP, each layer ``[d_mlp]``."""
        return self._by_layer(lambda w: self._bias(_gate(w)))

    @property
    def b_in(self) -> LayerWeights:
        """Up biases of the MLP, each layer ``[d_mlp]``."""
        return self._by_layer(lambda w: self._bias(_mlp(w).into))

    @property
    def b_out(self) -> LayerWeights:
        """Down biases of the MLP, each layer ``[d_model]``."""
        return self._by_layer(lambda w: self._bias(_mlp(w).out))

    def _by_layer(
        self, view: Callable[[LayerParams | RecurrentLayerParams], Array]
    ) -> LayerWeights:
        return LayerWeights([partial(view, w) for w in self.params.layers], self.backend)

    def _heads_out(self, w: Linear) -> Array:
        # [head * d_head, d_model] -> [head, d_model, d_head]
        return self.backend.xp.reshape(w.weight, (-1, self.cfg.d_head, self.cfg.d_model)).mT

    def _heads_in(self, w: Linear) -> Array:
        # [d_model, head * d_head] -> [head, d_head, d_model]
        split = self.backend.xp.reshape(w.weight, (self.cfg.d_model, -1, self.cfg.d_head))
        return self.backend.xp.permute_dims(split, (1, 2, 0))

    def _per_head(self, bias: Array) -> Array:
        return self.backend.xp.reshape(bias, (-1, self.cfg.d_head))

    def _bias(self, w: Linear) -> Array:
        return self._zeros(w.weight.shape[0]) if w.bias is None else w.bias

    def _zeros(self, size: int) -> Array:
        like = self.compute
        return self.backend.xp.zeros(size, dtype=like.dtype, device=like.device)


def _attention(w: LayerParams | RecurrentLayerParams) -> LayerParams:
    if isinstance(w, RecurrentLayerParams):
        raise WeightError(
            "this recurrent layer has no attention: its weights are in"
            " model.params.layers[l].attn, as receptance, key, value and so on."
        )
    return w


def _mlp(w: LayerParams | RecurrentLayerParams) -> MLPParams | ChannelMixParams:
    if isinstance(w.mlp, ExpertsParams):
        raise WeightError(
            "this layer's MLP is a mixture of experts: its weights are in"
            " model.params.layers[l].mlp.experts, the router's in .router."
        )
    return w.mlp


def _gate(w: LayerParams | RecurrentLayerParams) -> Linear:
    mlp = _mlp(w)
    if isinstance(mlp, ChannelMixParams) and mlp.gate is not None:
        raise WeightError(
            "channel mixing gates its output, not its neurons: its gate is in"
            " model.params.layers[l].mlp.gate."
        )
    gate = mlp.gate if isinstance(mlp, MLPParams) else None
    if gate is None:
        raise WeightError("this layer's MLP has no gate: W_in is its only branch.")
    return gate
