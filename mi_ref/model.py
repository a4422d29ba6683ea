"""A loaded model: run it, look inside, change what flows."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

from mi_ref import decoder
from mi_ref._typing import Array, DType, Float
from mi_ref.backend import Backend
from mi_ref.cache import Cache
from mi_ref.config import DecoderConfig
from mi_ref.errors import HookError, ShapeError, TokenError
from mi_ref.hook_points import HookPoints
from mi_ref.hooks import CaptureLike, EditFunction, Edits
from mi_ref.padding import Batch, Padding, PaddingSide, read_mask
from mi_ref.params import DecoderParams
from mi_ref.plan import NO_TAP, HookPlan
from mi_ref.provenance import Source
from mi_ref.run import Run
from mi_ref.selection import Selector
from mi_ref.sites import Site, at
from mi_ref.text import Prompt, TextMethods
from mi_ref.tokenizer import Tokenizer
from mi_ref.weight_views import WeightViews

LogitsWanted: TypeAlias = Literal["all", "last", "none"]
"""Which positions to unembed."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Model(TextMethods, WeightViews):
    """A decoder-only language model with a hook at every step.

    Immutable: hooks are arguments of a call, never state of the model. Get one from
    :func:`mi_ref.from_pretrained`.

    Attributes
    ----------
    cfg : DecoderConfig
        Sizes and structure.
    params : DecoderParams
        Weights as the checkpoint stores them; ``W_Q`` and so on give TransformerLens' axes.
    backend : Backend
        Array library and device.
    tokenizer : Tokenizer
        Text to ids and back.
    hook_points : HookPoints
        Every point that can be captured and edited; ``print(model.hook_points)``.
    source : Source
        Where it came from, for records.
    """

    cfg: DecoderConfig
    params: DecoderParams
    backend: Backend
    tokenizer: Tokenizer
    hook_points: HookPoints
    source: Source

    @property
    def dtype(self) -> DType:
        """What it computes in."""
        return self.params.embed.dtype

    def run(
        self,
        prompt: Prompt,
        *,
        capture: Iterable[CaptureLike] = (),
        edits: Edits = (),
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        logits: LogitsWanted = "all",
        prepend_bos: bool | None = None,
        padding_side: PaddingSide = "right",
        attention_mask: Any = None,
    ) -> Run:
        """Run the model on a prompt. Pure: nothing of the call remains in the model.

        Parameters
        ----------
        prompt : str, sequence of str or int, Array, or Batch
            Text, several texts, or token ids ``[pos]`` or ``[batch, pos]``; with `start_at_layer`,
            a residual stream ``[batch, pos, d_model]`` instead.
        capture : iterable of selectors
            What to keep: points, slices, strings, globs, predicates, tuples, or
            :func:`mi_ref.capture` for options.
        edits : mapping or sequence of (selector, edit)
            What to change, in order. An edit is a function ``fn(array, hook)`` that returns the
            array to go on with (None: its argument, changed in place or not), or an array that
            replaces the activation.
        start_at_layer : int or None
            First layer to run; negative counts from the end.
        stop_at_layer : int or None
            Layer to stop before; ``run.resid`` is then the residual stream entering it.
        logits : {"all", "last", "none"}
            Which positions to unembed.
        prepend_bos : bool or None
            Whether text gets a beginning-of-sequence token; None: as the checkpoint's tokenizer
            does it.
        padding_side : {"right", "left"}
            Where shorter prompts of a batch are padded. Each row computes what it would alone;
            what flows at pads means nothing. ``run.padding`` says where they are.
        attention_mask : Array, nested sequence, or None
            For token ids that hold pads: ``[batch, pos]``, 1 for a token and 0 for a pad.

        Returns
        -------
        Run

        Raises
        ------
        HookError
            If a hook names nothing that this call passes.
        TokenError
            If the prompt is empty or holds ids out of range.
        ShapeError
            If an edit or a residual stream does not fit.
        """
        if isinstance(capture, str) or not isinstance(capture, Iterable):
            raise HookError(f"capture={capture!r} is one selector: write capture=[{capture!r}].")
        layers = self._layers(start_at_layer, stop_at_layer)
        if logits not in ("all", "last", "none"):
            raise ValueError(f"logits={logits!r}: it is 'all', 'last' or 'none'.")
        finish = logits != "none" and layers.stop == self.cfg.n_layers
        tokens = resid = padding = None
        if start_at_layer is None:
            tokens, padding = self._batch(prompt, prepend_bos, padding_side)
            batch, n_pos = tokens.shape
        else:
            resid = self._residual(prompt, "start_at_layer")
            batch, n_pos = resid.shape[:2]
        if attention_mask is not None:
            padding = read_mask(attention_mask, (batch, n_pos), padding, self.backend)
        self._check_length(n_pos if padding is None else max(padding.lengths))
        sites: set[Site] = {at.embed, at.pos_embed} if tokens is not None else set()
        if finish:
            sites |= {at.ln_final_scale, at.ln_final_normalized, at.unembed_in, at.logits}
        plan = HookPlan(
            self.hook_points,
            tuple(capture),
            edits,
            layers=layers,
            sites=frozenset(sites),
            batch=batch,
            n_pos=n_pos,
            out_pos=1 if logits == "last" else n_pos,
            like=self.params.embed,
            backend=self.backend,
        )
        tap = plan.tap(None)
        if tokens is not None:
            resid = decoder.embed(self.params, self.cfg, tokens, padding, tap, self.backend)
        resid = decoder.run_layers(
            self.params, self.cfg, resid, padding, layers, plan, self.backend
        )
        out = None
        if finish:
            ends = (n_pos,) * batch if padding is None else padding.stops
            columns = self._array([[end - 1 for end in ends]])[0, :] if logits == "last" else None
            out = decoder.unembed(self.params, self.cfg, resid, columns, tap, self.backend)
        plan.check_fired()
        return Run(tokens, padding, out, resid, Cache(plan.captured, self.hook_points), self)

    def run_with_cache(
        self,
        prompt: Prompt,
        names_filter: Selector | Sequence[Selector] | None = None,
        **options: Any,
    ) -> tuple[Float[Array, "batch pos d_vocab"] | None, Cache]:
        """Return logits and captured activations, as TransformerLens does.

        Parameters
        ----------
        prompt
            As for `run`.
        names_filter : selector, sequence of selectors, or None
            What to keep; None for everything that the pass computes anyway.
        **options
            As for `run`.
        """
        wanted: Sequence[CaptureLike]
        if names_filter is None:
            wanted = (_everything,)
        elif isinstance(names_filter, list | set | frozenset):
            wanted = tuple(names_filter)
        else:
            wanted = (names_filter,)  # type: ignore[assignment]
        run = self.run(prompt, capture=wanted, **options)
        return run.logits, run.cache

    def run_with_hooks(
        self,
        prompt: Prompt,
        fwd_hooks: Sequence[tuple[Selector, EditFunction]] = (),
        **options: Any,
    ) -> Float[Array, "batch pos d_vocab"] | None:
        """Return the logits of a run edited by ``fn(array, hook)``, as TransformerLens does.

        Parameters
        ----------
        prompt
            As for `run`.
        fwd_hooks : sequence of (selector, function)
            The function returns the array to go on with, or None.
        **options
            As for `run`.
        """
        return self.run(prompt, edits=fwd_hooks, **options).logits

    def project_to_vocab(
        self, resid: Float[Array, "batch pos d_model"]
    ) -> Float[Array, "batch pos d_vocab"]:
        """Return the logits that a residual stream would give if it were the last.

        Final norm (with the statistics of this very stream), unembedding and soft-cap, exactly as
        at the end of a forward pass; under ``compat="candle-mi"`` without the cap.
        """
        checked = self._residual(resid, "project_to_vocab")
        cfg = self.cfg if self.cfg.compat is None else replace(self.cfg, softcap=None)
        return decoder.unembed(self.params, cfg, checked, None, NO_TAP, self.backend)

    def __repr__(self) -> str:
        cfg = self.cfg
        compat = "" if cfg.compat is None else f" as {cfg.compat} runs it"
        return (
            f"<Model {self.source.name}: {cfg.model_type}{compat}, {cfg.n_layers} layers,"
            f" {cfg.n_heads} heads, d_model {cfg.d_model}, d_vocab {cfg.d_vocab};"
            f" {self.backend.name}, {self.dtype}>"
        )

    def _layers(self, start: int | None, stop: int | None) -> range:
        n_layers = self.cfg.n_layers
        for name, end in (("start_at_layer", start), ("stop_at_layer", stop)):
            if isinstance(end, bool) or not (end is None or isinstance(end, int)):
                raise HookError(f"{name}={end!r} is no layer number.")
        ends = [0 if start is None else start, n_layers if stop is None else stop]
        ends = [end + n_layers if end < 0 else end for end in ends]
        if not 0 <= ends[0] <= ends[1] <= n_layers:
            raise HookError(
                f"start_at_layer={start}, stop_at_layer={stop} is no range of layers:"
                f" this model's are 0 to {n_layers - 1}."
            )
        return range(*ends)

    def _residual(self, resid: Any, caller: str) -> Array:
        like = self.params.embed
        if not isinstance(resid, type(like)) and not hasattr(resid, "dtype"):
            raise ShapeError(
                f"{caller} needs a residual stream [batch, pos, d_model], not a"
                f" {type(resid).__name__}: take run.resid or a captured at.resid_pre."
            )
        shape = tuple(resid.shape)
        if len(shape) != 3 or shape[2] != self.cfg.d_model or 0 in shape:
            raise ShapeError(
                f"{caller} needs a residual stream [batch, pos, d_model"
                f" {self.cfg.d_model}]; this one is {shape}."
            )
        if resid.dtype != like.dtype or resid.device != like.device:
            raise ShapeError(
                f"the residual stream is {resid.dtype} on {resid.device}; the model computes in"
                f" {like.dtype} on {like.device}."
            )
        return self.backend.ops.lay_out(resid, None)

    def _batch(
        self, prompt: Any, prepend_bos: bool | None, padding_side: PaddingSide
    ) -> tuple[Array, Padding | None]:
        if isinstance(prompt, Batch):
            batch = Batch(self.to_tokens(prompt.tokens), prompt.padding)
        else:
            batch = self.to_batch(prompt, padding_side=padding_side, prepend_bos=prepend_bos)
        return batch.tokens, batch.padding

    def _check_length(self, n_pos: int) -> None:
        if n_pos > self.cfg.n_ctx and self.cfg.learned_positions:
            raise TokenError(
                f"the prompt has {n_pos} tokens; {self.source.name} has learned embeddings of"
                f" {self.cfg.n_ctx} positions and none beyond. Shorten the prompt."
            )
        if n_pos > self.cfg.n_ctx:
            warnings.warn(
                f"the prompt has {n_pos} tokens and {self.source.name} was made for"
                f" {self.cfg.n_ctx}; rotary positions run on, but the model never learned them.",
                stacklevel=3,
            )


def _everything(name: str) -> bool:
    """Match every point: the predicate behind a cache of everything."""
    return True
