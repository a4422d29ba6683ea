"""What a recurrent model hands from token to token, as a value."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from mi_ref._typing import Array, Float
from mi_ref.backend import Backend
from mi_ref.config.decoder import DecoderConfig
from mi_ref.errors import ShapeError
from mi_ref.output.origin import Origin
from mi_ref.output.tables import Table
from mi_ref.weightless import Computing, Weightless

Part: TypeAlias = Literal["wkv", "attn_shift", "mlp_shift"]
PARTS: tuple[Part, ...] = ("wkv", "attn_shift", "mlp_shift")


@dataclass(frozen=True, slots=True, eq=False)
class LayerState:
    """The state that a sequence leaves in one layer."""

    wkv: Float[Array, "batch head d_key d_value"]
    """The matrix of each head, as ``at.rwkv_state`` has it after the last token."""
    attn_shift: Float[Array, "batch d_model"]
    """``at.attn_in`` of the last token, which the next one's token shift reads."""
    mlp_shift: Float[Array, "batch d_model"]
    """``at.mlp_in`` of the last token, likewise."""


@dataclass(frozen=True, slots=True, repr=False, eq=False, init=False)
class State:
    """The state of a recurrent model after some tokens: ``model.run(more, state=run.state)``.

    A value: the methods return new states. Its layers are those that the run went through.

    Attributes
    ----------
    layers : mapping
        Layer number to `LayerState`.
    cfg : DecoderConfig
        Sizes and structure of the model.
    backend : Backend
        The library that holds its arrays.
    origin : Origin
        The model that it belongs to, without its weights.
    """

    layers: Mapping[int, LayerState]
    cfg: DecoderConfig
    backend: Backend
    origin: Origin

    def __init__(self, layers: Mapping[int, LayerState], model: Weightless) -> None:
        """Make a state of a model, or of the model that a run or another state belongs to."""
        of = {"cfg": model.cfg, "backend": model.backend, "origin": model.origin}
        for name, value in {"layers": layers, **of}.items():
            object.__setattr__(self, name, value)

    @classmethod
    def empty(cls, model: Computing, batch: int = 1) -> State:
        """Return the state before any token: zeros."""
        _refuse_attention(model, "State.empty")
        return cls({n: _zeros(model, n, batch) for n in model.cfg.recurrent_layers}, model)

    @classmethod
    def load(cls, path: str | os.PathLike[str], model: Weightless) -> State:
        """Read a saved state, in the model's dtype.

        Raises
        ------
        ShapeError
            If it is none, or one of other weights.
        """
        from mi_ref.state.files import read_state

        take = model.backend.from_host
        read = read_state(path, model.origin)
        layers = {
            number: LayerState(*(take(parts[name]) for name in PARTS))
            for number, parts in read.items()
        }
        return cls(layers, model)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file that says which weights made it: whole or not at all."""
        from mi_ref.state.files import write_state

        host = self.backend.to_host
        layers = {
            number: {str(name): host(getattr(part, name)) for name in PARTS}
            for number, part in self.layers.items()
        }
        write_state(path, layers, self.origin)

    def __getitem__(self, layer: int) -> LayerState:
        n_layers = self.cfg.n_layers
        number = layer + n_layers if layer < 0 else layer
        if number not in self.layers:
            held = ", ".join(map(str, self.layers))
            raise ShapeError(f"this state has no layer {layer}; it has {held}.")
        return self.layers[number]

    @property
    def batch(self) -> int:
        """Number of rows; 0 if there are no layers, as after a run that stopped before them."""
        return next((int(part.wkv.shape[0]) for part in self.layers.values()), 0)

    def rows(self, rows: Sequence[int]) -> State:
        """Return the state of some rows, in that order: ``state.rows([0] * 8)`` makes eight."""
        outside = [row for row in rows if not -self.batch <= row < self.batch]
        if outside or not rows:
            raise ShapeError(f"rows={list(rows)} of a state of {self.batch}: name some of those.")
        xp, device = self.backend.xp, self.backend.device
        chosen = xp.asarray([row % self.batch for row in rows], dtype=xp.int64, device=device)
        return self._map(lambda x: xp.take(x, chosen, axis=0))

    def with_layer(
        self,
        layer: int,
        *,
        wkv: Float[Array, "batch head d_key d_value"] | None = None,
        attn_shift: Float[Array, "batch d_model"] | None = None,
        mlp_shift: Float[Array, "batch d_model"] | None = None,
    ) -> State:
        """Return this state with arrays of one layer replaced; None leaves one as it is."""
        old = self[layer]
        given = {"wkv": wkv, "attn_shift": attn_shift, "mlp_shift": mlp_shift}
        new = {name: value for name, value in given.items() if value is not None}
        for name, value in new.items():
            _check_like(value, getattr(old, name), f"{name} of layer {layer}")
        number = layer % self.cfg.n_layers
        return State({**self.layers, number: replace(old, **new)}, self)

    def patched(
        self,
        source: State,
        *,
        layers: Iterable[int] | None = None,
        heads: Collection[int] | None = None,
        parts: Collection[Part] = PARTS,
    ) -> State:
        """Return this state with parts taken from another prompt's.

        Parameters
        ----------
        source : State
            What to take from; as many rows.
        layers : iterable of int or None
            Which layers; None for all of this state.
        heads : collection of int or None
            Which heads' matrices; None for all. Then only ``"wkv"`` can be among the parts, since
            the shifts have no heads.
        parts : collection of str
            ``"wkv"`` (the matrices), ``"attn_shift"`` and ``"mlp_shift"`` (the last token).
        """
        if unknown := [part for part in parts if part not in PARTS]:
            raise ShapeError(f"parts={unknown}: a state has {', '.join(PARTS)}.")
        if heads is not None and set(parts) != {"wkv"}:
            raise ShapeError("heads= chooses matrices: pass parts=['wkv'] with it.")
        _check_model(source, self)
        chosen = list(self.layers if layers is None else layers)
        if not chosen or len(parts) == 0 or (heads is not None and len(heads) == 0):
            raise ShapeError("patched: layers, heads or parts names nothing; leave it out for all.")
        state = self
        for layer in chosen:
            taken = {part: getattr(source[layer], part) for part in parts}
            if heads is not None:
                taken["wkv"] = self._mixed(self[layer].wkv, taken["wkv"], heads, layer)
            state = state.with_layer(layer, **taken)
        return state

    def norms(self) -> dict[int, list[list[float]]]:
        """Return the Frobenius norm of each matrix: by layer, row and head."""
        xp, host = self.backend.xp, self.backend.to_host
        return {
            layer: host(xp.sqrt(xp.sum(part.wkv * part.wkv, axis=(-2, -1)))).tolist()
            for layer, part in self.layers.items()
        }

    def table(self, row: int = 0) -> Table:
        """Return the norms of one row's matrices: a line per layer, a column per head."""
        if not -self.batch <= row < self.batch:
            raise ShapeError(f"row={row} of a state of {self.batch} rows.")
        heads = range(self.cfg.n_heads)
        table = Table([">layer", *(f">head {head}" for head in heads)])
        for layer, norms in self.norms().items():
            table.add(layer, *(f"{norm:.3f}" for norm in norms[row]))
        return table

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        name = self.origin.name
        return f"<State of {name}: {self.batch} rows, {len(self.layers)} layers>"

    def _repr_html_(self) -> str:
        return self.table().html()

    def _map(self, change: Callable[[Array], Array]) -> State:
        layers = {
            number: LayerState(*(change(getattr(part, name)) for name in PARTS))
            for number, part in self.layers.items()
        }
        return State(layers, self)

    def _mixed(self, own: Array, other: Array, heads: Collection[int], layer: int) -> Array:
        """Return `own` with some heads of `other`."""
        n_heads = own.shape[1]
        if outside := [head for head in heads if not -n_heads <= head < n_heads]:
            raise ShapeError(f"heads={outside}: layer {layer} has heads 0 to {n_heads - 1}.")
        _check_like(other, own, f"wkv of layer {layer}")
        chosen = {head % n_heads for head in heads}
        xp, device = self.backend.xp, self.backend.device
        mask = xp.asarray([head in chosen for head in range(n_heads)], device=device)
        return xp.where(mask[None, :, None, None], other, own)


def check_state(state: State, model: Computing, layers: range, batch: int) -> None:
    """Refuse a state from which a call cannot go on.

    Raises
    ------
    ShapeError
        If it is another model's, has other rows, or lacks a layer that the call runs.
    """
    _refuse_attention(model, "state=")
    if not isinstance(state, State):
        raise ShapeError(f"state= is a {type(state).__name__}: pass a State, such as run.state.")
    _check_model(state, model)
    recurrent = [layer for layer in layers if layer in model.cfg.recurrent_layers]
    if missing := [str(layer) for layer in recurrent if layer not in state.layers]:
        raise ShapeError(
            f"the state lacks layers {', '.join(missing)}, which this call runs: it comes from a"
            " run that stopped before them, or started after."
        )
    if state.batch != batch:
        raise ShapeError(
            f"the state has {state.batch} rows, the prompt {batch}: state.rows([0] * {batch})"
            " gives every row the first one's."
        )
    for layer in recurrent:
        needed = _zeros(model, layer, batch)
        for name in PARTS:
            value = getattr(state.layers[layer], name)
            _check_like(value, getattr(needed, name), f"{name} of layer {layer}")


def _check_model(state: State, model: Weightless) -> None:
    if not state.origin.same_model(model.origin):
        raise ShapeError(
            f"the state is of {state.origin.name} as loaded elsewhere, not of this model. If"
            " its numbers mean the same here, pass State(state.layers, model)."
        )


def _refuse_attention(model: Weightless, caller: str) -> None:
    if not model.cfg.recurrent_layers:
        raise ShapeError(
            f"{caller}: {model.origin.name} attends and has no recurrent state; pass a recurrent"
            " model."
        )


def _zeros(model: Computing, layer: int, batch: int) -> LayerState:
    cfg, like, xp = model.cfg, model.compute, model.backend.xp
    attn = cfg.layers[layer].mixer

    def zeros(*shape: int) -> Array:
        return xp.zeros((batch, *shape), dtype=like.dtype, device=like.device)

    return LayerState(
        zeros(attn.n_heads, attn.d_head, attn.d_head), zeros(cfg.d_model), zeros(cfg.d_model)
    )


def _check_like(value: Array, like: Array, what: str) -> None:
    if not hasattr(value, "dtype") or tuple(value.shape) != tuple(like.shape):
        shape = getattr(value, "shape", type(value).__name__)
        raise ShapeError(f"{what} is {shape}; it must be {tuple(like.shape)}.")
    if value.dtype != like.dtype or value.device != like.device:
        raise ShapeError(
            f"{what} is {value.dtype} on {value.device}; it must be {like.dtype} on {like.device}."
        )
