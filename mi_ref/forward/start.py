"""What a call gives a model to run on, checked: tokens, or a residual stream to go on from."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

from mi_ref._typing import Array, Float, Int, Residual
from mi_ref.config.decoder import TimeMix7
from mi_ref.errors import ArgumentError, HookError, ShapeError, TokenError
from mi_ref.run import Run
from mi_ref.text.padding import Batch, Padding, PaddingSide, read_mask
from mi_ref.text.prompt import TextMethods
from mi_ref.weightless import Computing, Weightless


@dataclass(frozen=True, slots=True)
class Start:
    """What a run starts from: tokens or a residual stream, and the other is None."""

    tokens: Int[Array, "batch pos"] | None
    resid: Residual | None
    first_values: Float[Array, "batch pos head d_head"] | None
    """Layer 0's values, of a recurrent model that starts after it."""
    padding: Padding | None

    @property
    def batch(self) -> int:
        """Rows."""
        return int(self._array.shape[0])

    @property
    def n_pos(self) -> int:
        """Columns."""
        return int(self._array.shape[1])

    @property
    def _array(self) -> Array:
        return self.resid if self.tokens is None else self.tokens


def read_layers(model: Weightless, start: int | None, stop: int | None) -> range:
    """Return the layers to run; negative numbers count from the end.

    Raises
    ------
    HookError
        If this model has no such range.
    """
    n_layers = model.cfg.n_layers
    for name, end in (("start_at_layer", start), ("stop_at_layer", stop)):
        if isinstance(end, bool) or not (end is None or isinstance(end, int)):
            raise ArgumentError(f"{name}={end!r}: expected a layer number or None.")
    ends = [0 if start is None else start, n_layers if stop is None else stop]
    ends = [end + n_layers if end < 0 else end for end in ends]
    if not 0 <= ends[0] <= ends[1] <= n_layers:
        raise HookError(
            f"start_at_layer={start}, stop_at_layer={stop} is not a range of layers:"
            f" this model's are 0 to {n_layers - 1}."
        )
    return range(*ends)


def read_prompt(
    model: TextMethods, prompt: Any, prepend_bos: bool | None, side: PaddingSide, mask: Any
) -> Start:
    """Return a prompt as tokens, and where its pads are."""
    if isinstance(prompt, Run):
        raise TokenError("the prompt is a run: with it, say start_at_layer= where it stopped.")
    if isinstance(prompt, Batch):
        batch = Batch(model.to_tokens(prompt.tokens), prompt.padding)
    else:
        batch = model.to_batch(prompt, padding_side=side, prepend_bos=prepend_bos)
    shape = batch.tokens.shape[0], batch.tokens.shape[1]
    padding = batch.padding
    if mask is not None:
        padding = read_mask(mask, shape, padding, model.backend)
    return Start(batch.tokens, None, None, padding)


def read_residual(model: Computing, prompt: Any, layer: int, mask: Any) -> Start:
    """Return what a run that starts at `layer` goes on from.

    Raises
    ------
    ShapeError
        If it is not a residual stream of this model, or lacks what else the layer reads.
    """
    run = prompt if isinstance(prompt, Run) else None
    if run is not None and not run.origin.same_model(model.origin):
        raise ShapeError(
            f"the run is of {run.origin.name} as loaded elsewhere, not of this model; pass"
            " run.resid if its numbers mean the same here."
        )
    resid = check_residual(model, prompt if run is None else run.resid, "start_at_layer")
    padding = None if run is None else run.padding
    if mask is not None:
        padding = read_mask(mask, (resid.shape[0], resid.shape[1]), padding, model.backend)
    first_values = None if run is None else run.first_values
    if layer > 0 and first_values is None and _mixes_first_values(model):
        raise ShapeError(
            "layers after the first mix layer 0's values into their own, which a residual stream"
            " does not hold: pass the run that stopped there, model.run(run,"
            f" start_at_layer={layer})."
        )
    return Start(None, resid, first_values if layer > 0 else None, padding)


def check_residual(model: Computing, resid: Any, caller: str) -> Residual:
    """Return a residual stream in the model's memory order.

    Raises
    ------
    ShapeError
        If it is none.
    """
    like = model.compute
    if not isinstance(resid, type(like.array(model.backend))) and not hasattr(resid, "dtype"):
        raise ShapeError(
            f"{caller} needs a residual stream [batch, pos, d_model], not a"
            f" {type(resid).__name__}: take run.resid or a captured at.resid_pre."
        )
    shape = tuple(resid.shape)
    if len(shape) != 3 or shape[2] != model.cfg.d_model or 0 in shape:
        raise ShapeError(
            f"{caller} needs a residual stream [batch, pos, d_model"
            f" {model.cfg.d_model}]; this one is {shape}."
        )
    if resid.dtype != like.dtype or resid.device != like.device:
        raise ShapeError(
            f"the residual stream is {resid.dtype} on {resid.device}; the model computes in"
            f" {like.dtype} on {like.device}."
        )
    return model.backend.ops.lay_out(resid, None)


def check_length(model: Weightless, start: Start) -> None:
    """Refuse a prompt that has more tokens than positions were learned; warn if rotary ones run on.

    Raises
    ------
    TokenError
        If the model has no embedding of its last positions.
    """
    cfg = model.cfg
    n_pos = start.n_pos if start.padding is None else max(start.padding.lengths)
    if cfg.n_ctx is None or n_pos <= cfg.n_ctx or cfg.recurrent:
        return
    if cfg.learned_positions:
        raise TokenError(
            f"the prompt has {n_pos} tokens; {model.origin.name} has learned embeddings of"
            f" {cfg.n_ctx} positions and none beyond. Shorten the prompt."
        )
    warnings.warn(
        f"the prompt has {n_pos} tokens and {model.origin.name} was made for"
        f" {cfg.n_ctx}; rotary positions run on, but the model never learned them.",
        stacklevel=3,
    )


def _mixes_first_values(model: Weightless) -> bool:
    attns = [layer.mixer for layer in model.cfg.layers]
    return any(isinstance(attn, TimeMix7) and attn.d_value is not None for attn in attns)
