"""Which tokens' writes and which heads' states carry a recurrent model's prediction.

`state_knockout_sweep` keeps one token at a time from writing, in one layer at a time. It does not
make the token invisible; see `mi_ref.state_knockout` for what is left of it.
`state_steering_sweep` multiplies what tokens write, and `state_patching` takes one head's matrix
at a time from another text's state. Each cell is a run of its own, and is measured against the
same run without edits: KL in nats, exact, and the target's probability.

Source: candle-mi's state knockout and steering; Sharma, Atkinson, Bau 2024, arXiv:2404.03646, for
patching.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Unpack

from mi_ref.analysis.arguments.numbers import finite
from mi_ref.analysis.arguments.prompts import one_prompt, places, position_names
from mi_ref.analysis.measure import metrics
from mi_ref.analysis.measure.next_token import Outcome, baseline
from mi_ref.analysis.recurrent.grid import StateGrid
from mi_ref.analysis.sweeps.sweep import SweepCell, SweepOptions, sweep
from mi_ref.edits.intervention import Places
from mi_ref.edits.state import StateEdits, state_knockout, state_steering
from mi_ref.errors import ShapeError
from mi_ref.model import Model
from mi_ref.output.progress import tracked
from mi_ref.run import Run
from mi_ref.state.state import State
from mi_ref.text.prompt import Prompt


def state_knockout_sweep(
    model: Model,
    prompt: Prompt,
    *,
    target: str | int | None = None,
    positions: Places = None,
    layers: Places = None,
    heads: Sequence[int] | None = None,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> StateGrid:
    """Keep each token from writing into each layer's state, and see what is then predicted.

    Parameters
    ----------
    model : Model
        A recurrent one.
    prompt : str, sequence of int, or Array
        One prompt.
    target : str, int or None
        The token to follow; None for the likeliest.
    positions, layers : int, slice, sequence or None
        Which tokens, and in which layers; None for all.
    heads : sequence of int or None
        In which heads; None for all.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweeps.sweep.sweep`: ``rows``, ``executor``, ``resume``.
    """
    tokens = one_prompt(model, prompt, prepend_bos)
    chosen = places(positions, len(tokens), "positions")
    names = position_names(model.origin, tokens)
    return _swept(
        model,
        tokens,
        "state_knockout",
        lambda column, where: state_knockout([chosen[column]], layers=where, heads=heads),
        tuple(names[pos] for pos in chosen),
        places(layers, model.cfg.n_layers, "layers"),
        target,
        options,
    )


def state_steering_sweep(
    model: Model,
    prompt: Prompt,
    scales: Sequence[float] = (0.0, 0.5, 1.5, 2.0, 4.0),
    *,
    target: str | int | None = None,
    positions: Places = None,
    layers: Places = None,
    heads: Sequence[int] | None = None,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> StateGrid:
    """Multiply what tokens write into each layer's state, and see what is then predicted.

    Parameters
    ----------
    model, prompt, target, layers, heads, prepend_bos, **options
        As for `state_knockout_sweep`.
    scales : sequence of float
        Factors of the writes, one run each; 0 is a knockout, 1 changes nothing.
    positions : int, slice, sequence or None
        Whose writes, all of them together; None for all.

    Returns
    -------
    StateGrid
        Layers by scales.
    """
    factors = finite(scales, "scales")
    if not factors:
        raise ShapeError("scales is empty: name at least one factor of the writes.")
    tokens = one_prompt(model, prompt, prepend_bos)
    chosen = places(positions, len(tokens), "positions")
    return _swept(
        model,
        tokens,
        "state_steering",
        lambda n, where: state_steering(chosen, scale=factors[n], layers=where, heads=heads),
        tuple(f"× {scale:g}" for scale in factors),
        places(layers, model.cfg.n_layers, "layers"),
        target,
        options,
    )


def _swept(
    model: Model,
    tokens: tuple[int, ...],
    kind: str,
    edits: Callable[[int, Sequence[int]], StateEdits],
    columns: tuple[str, ...],
    layers: tuple[int, ...],
    target: str | int | None,
    options: SweepOptions,
) -> StateGrid:
    """Return what each column's edits do, in one layer after the other and in all at once."""
    clean = model.run(tokens, logits="last")
    base = baseline(clean, target)
    rows = [*((layer,) for layer in layers), layers]
    found = sweep(
        model,
        tokens,
        [
            SweepCell(edits(n, where), label=f"layer {', '.join(map(str, where))}, {name}")
            for where in rows
            for n, name in enumerate(columns)
        ],
        [
            metrics.Probability(metrics.token(model, base.target)),
            metrics.divergence(model, clean.logits_at()),
        ],
        **options,
    )
    cells = [Outcome(*values) for values in found.values]
    grid = [tuple(cells[n : n + len(columns)]) for n in range(0, len(cells), len(columns))]
    return StateGrid(
        kind=kind,
        cells=tuple(grid[:-1]),
        layers=layers,
        columns=columns,
        together=grid[-1],
        natural=base.outcome(clean).probability,
        target=base.target,
        target_token=base.token,
        prompts=(tokens,),
        origin=model.origin,
    )


def state_patching(
    model: Model,
    prompt: Prompt,
    source: Prompt,
    after: Prompt,
    *,
    target: str | int | None = None,
    layers: Places = None,
    prepend_bos: bool | None = None,
) -> StateGrid:
    """Take each head's state from another text before both read on.

    Parameters
    ----------
    model : Model
        A recurrent one.
    prompt, source : str, sequence of int, or Array
        What leaves the state that is patched, and the one that is taken from. Of any lengths.
    after : str, sequence of int, or Array
        What is read then, from the patched state; it gets no beginning-of-sequence token.
    target : str, int or None
        The token to follow; None for what the unpatched run finds likeliest. What `source` would
        say shows the patch at work.
    layers : int, slice, sequence or None
        Which; None for all.
    prepend_bos : bool or None
        For `prompt` and `source`, as for `Model.run`.
    """
    ids = [one_prompt(model, each, prepend_bos) for each in (prompt, source)]
    rest = one_prompt(model, after, False)
    own, other = (_state(model.run(each, logits="none")) for each in ids)
    numbers = places(layers, model.cfg.n_layers, "layers")
    clean = model.run(rest, state=own, logits="last")
    base = baseline(clean, target)

    def patched(head: int, where: Sequence[int]) -> Outcome:
        state = own.patched(other, layers=where, heads=[head], parts=["wkv"])
        return base.outcome(model.run(rest, state=state, logits="last"))

    heads = range(model.cfg.n_heads)
    return StateGrid(
        kind="state_patching",
        cells=tuple(
            tuple(patched(head, [n]) for head in heads) for n in tracked(numbers, "layers")
        ),
        layers=numbers,
        columns=tuple(f"head {head}" for head in heads),
        together=tuple(patched(head, numbers) for head in heads),
        natural=base.outcome(clean).probability,
        target=base.target,
        target_token=base.token,
        prompts=(*ids, rest),
        origin=model.origin,
    )


def _state(run: Run) -> State:
    if run.state is None:
        raise ShapeError(
            f"{run.origin.name} attends and has no recurrent state: patch its residual stream or"
            " its heads instead."
        )
    return run.state
