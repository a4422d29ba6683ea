"""What writes to the residual stream, one component at a time.

Everything that a block adds is linear in the outputs of its heads, and in its neurons, once any
norm or gate after them is frozen at what this prompt made of it. So the parts sum to the whole,
biases included, and :func:`check_sum` insists on it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mi_ref._typing import Array, Float
from mi_ref.config.decoder import LayerNorm, NormKind, RecurrentLayer
from mi_ref.errors import MiRefError
from mi_ref.hooks.sites import Point, at
from mi_ref.model import Model
from mi_ref.params.params import ExpertsParams, LayerParams, Norm
from mi_ref.run import Run

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
"""How far parts may miss their whole, relative to the parts' own size."""


@dataclass(frozen=True, slots=True)
class Component:
    """One thing that writes to the stream, or to the logits: ``head 3.1``, ``mlp 0``, ``embed``."""

    kind: str
    """``embed``, ``pos_embed``, ``attn``, ``head``, ``attn bias``, ``mlp``, ``neuron``,
    ``mlp bias``, ``final norm bias`` or ``unembedding bias``."""
    layer: int | None = None
    index: int | None = None
    """Number of the head or neuron."""

    def __str__(self) -> str:
        numbers = [str(n) for n in (self.layer, self.index) if n is not None]
        return f"{self.kind} {'.'.join(numbers)}".strip()


Writes = tuple[tuple[Component, ...], Array]
"""Components, and what they write: ``[component, pos, d_model]``."""


def points_needed(model: Model, heads: Collection[int], neurons: Collection[int]) -> list[Point]:
    """Return what a run has to capture for `stream_writes`.

    Parameters
    ----------
    model : Model
        What runs.
    heads, neurons : collection of int
        Layers whose attention is split into heads, and whose MLP into neurons.
    """
    points: list[Point] = [at.embed]
    if model.params.ln_embed is not None:
        points = [at.resid_pre[0]]
    elif model.params.pos_embed is not None:
        points.append(at.pos_embed)
    for layer in range(model.cfg.n_layers):
        points.append((at.result if layer in heads else at.attn_out)[layer])
        points.append((at.post if layer in neurons else at.mlp_out)[layer])
        frozen = [at.ln1_post_scale[layer]] if layer in heads else []
        frozen += [at.ln2_post_scale[layer], at.mlp_gate[layer]] if layer in neurons else []
        points += [point for point in frozen if model.hook_points.absence(point) is None]
    return points


def stream_writes(
    model: Model, run: Run, heads: Collection[int], neurons: Collection[int]
) -> Iterator[Writes]:
    """Yield what was written to the stream of row 0, in the order in which it was.

    Parameters
    ----------
    model : Model
        What ran.
    run : Run
        With everything that `points_needed` names, at any positions.
    heads, neurons : collection of int
        As for `points_needed`.

    Notes
    -----
    ``embed`` is what enters the first block, less any learned embedding of positions: after any
    norm of the embedding.
    """
    params = model.params
    base = at.embed if params.ln_embed is None else at.resid_pre[0]
    yield (Component("embed"),), run[base][:1, :, :]
    if params.ln_embed is None and params.pos_embed is not None:
        yield (Component("pos_embed"),), run[at.pos_embed][:1, :, :]
    for layer in range(model.cfg.n_layers):
        if layer in heads:
            yield from _by_head(model, run, layer)
        else:
            yield (Component("attn", layer),), run[at.attn_out[layer]][:1, :, :]
        if layer in neurons:
            yield from _by_neuron(model, run, layer)
        else:
            yield (Component("mlp", layer),), run[at.mlp_out[layer]][:1, :, :]


def check_sum(
    parts: Float[Array, "component ..."], whole: Float[Array, "..."], what: str, model: Model
) -> None:
    """Refuse parts that do not sum to their whole.

    Raises
    ------
    MiRefError
        If they miss it by more than `TOLERANCE`, relative to the size of the parts.
    """
    xp = model.backend.xp
    off = float(xp.max(xp.abs(xp.sum(parts, axis=0) - whole)))
    size = float(xp.max(xp.sum(xp.abs(parts), axis=0)))
    bound = TOLERANCE[str(model.dtype).rpartition(".")[2]]
    if not off <= bound * size:
        raise MiRefError(
            f"the parts of {what} miss it by {off:.3g}, where rounding explains"
            f" {bound * size:.3g}. This is a defect of mi_ref: report it with your call."
        )


def _by_head(model: Model, run: Run, layer: int) -> Iterator[Writes]:
    """Yield what the heads of a layer write, and what its biases do."""
    xp = model.backend.xp
    w, kind = model.params.layers[layer], model.cfg.layers[layer]
    assert isinstance(w, LayerParams)
    assert not isinstance(kind, RecurrentLayer)
    result = run[at.result[layer]][0, :, :, :]  # [pos, head, d_model]
    scale = None if kind.ln1_post is None else run[at.ln1_post_scale[layer]]
    frozen = _Frozen(w.ln1_post, kind.ln1_post, scale, None)
    heads = tuple(Component("head", layer, head) for head in range(result.shape[1]))
    yield heads, frozen.push(xp.permute_dims(result, (1, 0, 2)), model)
    yield from _biases("attn bias", layer, frozen, w.out.bias, result.shape[0], model)


def _by_neuron(model: Model, run: Run, layer: int) -> Iterator[Writes]:
    """Yield what the neurons of a layer write, and what its biases do."""
    xp = model.backend.xp
    w, kind = model.params.layers[layer], model.cfg.layers[layer]
    assert not isinstance(w.mlp, ExpertsParams)
    if isinstance(kind, RecurrentLayer):
        frozen = _Frozen(None, None, None, run[at.mlp_gate[layer]] if kind.mlp.gated else None)
    else:
        assert isinstance(w, LayerParams)
        scale = None if kind.ln2_post is None else run[at.ln2_post_scale[layer]]
        frozen = _Frozen(w.ln2_post, kind.ln2_post, scale, None)
    post = xp.permute_dims(run[at.post[layer]][0, :, :], (1, 0))  # [d_mlp, pos]
    neurons = tuple(Component("neuron", layer, n) for n in range(post.shape[0]))
    yield neurons, frozen.push(post[:, :, None] * w.mlp.out.weight.mT[:, None, :], model)
    yield from _biases("mlp bias", layer, frozen, w.mlp.out.bias, post.shape[1], model)


@dataclass(frozen=True, slots=True)
class _Frozen:
    """What stands between a part's output and the stream, as this prompt made it."""

    norm: Norm | None
    kind: NormKind | None
    scale: Array | None
    """The norm's denominator ``[1, pos, 1]``."""
    gate: Array | None
    """``[1, pos, d_model]``."""

    def push(self, x: Float[Array, "component pos d_model"], model: Model) -> Array:
        """Return what reaches the stream of each component."""
        if self.gate is not None:
            return x * self.gate
        if self.norm is None:
            return x
        if isinstance(self.kind, LayerNorm):
            x = model.backend.ops.center(x)
        return x / self.scale * self.norm.weight


def _biases(
    name: str, layer: int, frozen: _Frozen, bias: Array | None, n_pos: int, model: Model
) -> Iterator[Writes]:
    """Yield what reaches the stream of a linear map's bias, with that of any norm after it."""
    norm_bias = None if frozen.norm is None else frozen.norm.bias
    if bias is None and norm_bias is None:
        return
    xp = model.backend.xp
    shape = (1, n_pos, model.cfg.d_model)
    like = model.compute
    total = xp.zeros(shape, dtype=like.dtype, device=like.device)
    if bias is not None:
        total = total + frozen.push(xp.broadcast_to(bias, shape), model)
    yield (Component(name, layer),), total if norm_bias is None else total + norm_bias
