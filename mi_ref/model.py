"""A loaded model: run it, look inside, change what flows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from mi_ref._typing import Array, DType, Float
from mi_ref.backend import Backend
from mi_ref.checkpoints.identity import Identity
from mi_ref.checkpoints.source import Source
from mi_ref.compute import Compute
from mi_ref.config.decoder import DecoderConfig
from mi_ref.errors import ArgumentError, HookError
from mi_ref.forward import decoder
from mi_ref.forward.carry import Carry
from mi_ref.forward.layers import run_layers
from mi_ref.forward.plan import NO_TAP, HookPlan, Pass
from mi_ref.forward.start import (
    check_length,
    check_residual,
    read_layers,
    read_prompt,
    read_residual,
)
from mi_ref.hooks.cache import Cache
from mi_ref.hooks.capture import CaptureLike, EditFunction, Edits
from mi_ref.hooks.catalog import HookPoints
from mi_ref.hooks.selectors import Selector
from mi_ref.hooks.sites import Site, at
from mi_ref.output.origin import Origin
from mi_ref.params.params import DecoderParams, RecurrentLayerParams, TimeMix6Params
from mi_ref.params.views import WeightViews
from mi_ref.run import Run
from mi_ref.state.state import LayerState, State, check_state
from mi_ref.text.padding import PaddingSide
from mi_ref.text.prompt import Prompt, TextMethods
from mi_ref.text.tokenizer import Tokenizer

LogitsWanted: TypeAlias = Literal["all", "last", "none"]
"""Which positions to unembed."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Model(TextMethods, WeightViews, Identity):
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
    compute : Compute
        What every activation is: its dtype and device.
    source : Source
        The checkpoint it was loaded from.
    origin : Origin
        The same without the weights' files, for runs and results.
    """

    cfg: DecoderConfig
    params: DecoderParams
    backend: Backend
    tokenizer: Tokenizer
    hook_points: HookPoints
    compute: Compute
    source: Source
    origin: Origin = field(init=False)
    _reload: Callable[[str], Model] | None = field(init=False, default=None)
    """Loads this very model in another process, given the hash of its weights."""

    @property
    def dtype(self) -> DType:
        """What it computes in."""
        return self.compute.dtype

    def run(
        self,
        prompt: Prompt,
        *,
        capture: Iterable[CaptureLike] = (),
        edits: Edits = (),
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
        logits: LogitsWanted = "all",
        state: State | None = None,
        prepend_bos: bool | None = None,
        padding_side: PaddingSide = "right",
        attention_mask: Any = None,
        check_edits: bool = False,
    ) -> Run:
        """Run the model on a prompt. Pure: nothing of the call remains in the model.

        Parameters
        ----------
        prompt : str, sequence of str or int, Array, Batch, or Run
            Text, several texts, or token ids ``[pos]`` or ``[batch, pos]``; with `start_at_layer`,
            a residual stream ``[batch, pos, d_model]``, or the run that stopped there.
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
        state : State or None
            The state that the tokens before this prompt left in a recurrent model, ``run.state``;
            None if there are none.
        prepend_bos : bool or None
            Whether text gets a beginning-of-sequence token; None: as the checkpoint's tokenizer
            does it, and not after a `state`.
        padding_side : {"right", "left"}
            Where shorter prompts of a batch are padded. Each row computes what it would alone;
            what flows at pads means nothing. ``run.padding`` says where they are.
        attention_mask : Array, nested sequence, or None
            For token ids that hold pads: ``[batch, pos]``, 1 for a token and 0 for a pad.
        check_edits : bool
            Whether an edit that changes no value at its point is an error, so that a steering
            vector at the wrong place is noticed.

        Returns
        -------
        Run

        Raises
        ------
        HookError
            If a hook names nothing that this call passes; or as `check_edits` says.
        TokenError
            If the prompt is empty or holds ids out of range.
        ShapeError
            If an edit, a residual stream or a state does not fit.
        """
        if isinstance(capture, str) or not isinstance(capture, Iterable):
            raise HookError(f"capture={capture!r} is one selector: write capture=[{capture!r}].")
        layers = read_layers(self, start_at_layer, stop_at_layer)
        if logits not in ("all", "last", "none"):
            raise ArgumentError(f"logits={logits!r}: expected 'all', 'last' or 'none'.")
        finish = logits != "none" and layers.stop == self.cfg.n_layers
        if start_at_layer is None:
            # What goes on from a state is the middle of a text.
            bos = False if prepend_bos is None and state is not None else prepend_bos
            start = read_prompt(self, prompt, bos, padding_side, attention_mask)
        else:
            start = read_residual(self, prompt, layers.start, attention_mask)
        check_length(self, start)
        if state is not None:
            check_state(state, self, layers, start.batch)
        sites: set[Site] = {at.embed, at.pos_embed} if start.tokens is not None else set()
        if finish:
            sites |= {at.ln_final_scale, at.ln_final_normalized, at.unembed_in, at.logits}
        plan = HookPlan(
            self.hook_points,
            tuple(capture),
            edits,
            Pass(
                layers=layers,
                sites=frozenset(sites),
                batch=start.batch,
                n_pos=start.n_pos,
                n_keys=start.n_pos,
                out_pos=1 if logits == "last" else start.n_pos,
                padding=start.padding,
                like=self.compute.array(self.backend),
                backend=self.backend,
            ),
            check_edits=check_edits,
        )
        tap, padding, resid = plan.tap(None), start.padding, start.resid
        if start.tokens is not None:
            resid = decoder.embed(self.params, self.cfg, start.tokens, padding, tap, self.backend)
        assert resid is not None
        carry, after = run_layers(
            self.params, self.cfg, Carry(resid, start.first_values, None),
            self._states(state, start.batch), padding, layers, plan, self.backend,
        )  # fmt: skip
        out = None
        if finish:
            ends = (start.n_pos,) * start.batch if padding is None else padding.stops
            columns = None
            if logits == "last":
                columns = self._array([[end - 1 for end in ends]])[0, :]
            out = decoder.unembed(self.params, self.cfg, carry.resid, columns, tap, self.backend)
        plan.check_fired()
        cache = Cache(plan.captured, self.hook_points)
        new_state = State(after, self) if self.cfg.recurrent_layers else None
        return Run(
            start.tokens, padding, out, carry.resid, new_state,
            carry.first_values, self._bonuses(), cache, self.cfg, self.backend, self.origin,
        )  # fmt: skip

    def _bonuses(self) -> tuple[Array, ...] | None:
        attns = [w.attn for w in self.params.layers if isinstance(w, RecurrentLayerParams)]
        found = tuple(attn.bonus for attn in attns if isinstance(attn, TimeMix6Params))
        return found or None

    def _states(self, state: State | None, batch: int) -> Mapping[int, LayerState]:
        """Return what the tokens before left in each recurrent layer: zeros if there are none."""
        if state is not None:
            return state.layers
        return State.empty(self, batch).layers if self.cfg.recurrent_layers else {}

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
        checked = check_residual(self, resid, "project_to_vocab")
        cfg = self.cfg if self.cfg.compat is None else replace(self.cfg, softcap=None)
        return decoder.unembed(self.params, cfg, checked, None, NO_TAP, self.backend)

    def __repr__(self) -> str:
        cfg = self.cfg
        compat = "" if cfg.compat is None else f" as {cfg.compat} runs it"
        return (
            f"<Model {self.origin.name}: {cfg.model_type}{compat}, {cfg.n_layers} layers,"
            f" {cfg.n_heads} heads, d_model {cfg.d_model}, d_vocab {cfg.d_vocab};"
            f" {self.backend.name}, {self.dtype}>"
        )


def _everything(name: str) -> bool:
    """Match every point: the predicate behind a cache of everything."""
    return True
