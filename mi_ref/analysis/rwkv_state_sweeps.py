"""Which tokens' writes and which heads' states carry a recurrent model's prediction.

`state_knockout_sweep` keeps one token at a time from writing, in one layer at a time. It does not
make the token invisible; see `mi_ref.state_knockout` for what is left of it. `state_patching` takes
one head's matrix at a time from another text's state. Each cell is a run of its own, and is
measured against the same untouched run: KL in nats, exact, and the target's probability.

Source: candle-mi's state knockout; Sharma, Atkinson, Bau 2024, arXiv:2404.03646, for patching.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mi_ref.analysis.lens_views import chance
from mi_ref.analysis.next_token import Outcome, untouched
from mi_ref.analysis.prompt_pair import one_prompt, places, position_names
from mi_ref.analysis.result import Result, record_of
from mi_ref.errors import ShapeError
from mi_ref.interventions import Places
from mi_ref.model import Model
from mi_ref.progress import tracked
from mi_ref.run import Run
from mi_ref.state import State
from mi_ref.state_interventions import state_knockout
from mi_ref.tables import Table
from mi_ref.text import Prompt

Grid = tuple[tuple[Outcome, ...], ...]


@dataclass(frozen=True, slots=True, repr=False)
class StateGrid(Result):
    """What is left of a prediction after each of many changes of the state.

    Attributes
    ----------
    kind : str
        ``"state_knockout"`` or ``"state_patching"``.
    cells : tuple of tuple of Outcome
        By layer in the order of `layers`, then by column.
    layers : tuple of int
        Those changed.
    columns : tuple of str
        What the columns are: tokens, or heads.
    together : tuple of Outcome
        By column: changed in all of `layers` at once.
    natural : float
        The target's probability without any change.
    target, target_token : int, str
        The token followed.
    prompts : tuple of tuple of int
        The tokens of the prompt; for patching, of what is patched, of the source and of what both
        read then.
    """

    kind: str
    cells: Grid
    layers: tuple[int, ...]
    columns: tuple[str, ...]
    together: tuple[Outcome, ...]
    natural: float
    target: int
    target_token: str
    prompts: tuple[tuple[int, ...], ...]
    model: Model = field(compare=False)

    def strongest(self) -> tuple[int, int]:
        """Return the layer and the column (counted from 0) whose change costs most nats."""
        ranked = [
            (cell.kl, layer, column)
            for layer, row in zip(self.layers, self.cells, strict=True)
            for column, cell in enumerate(row)
        ]
        _, layer, column = max(ranked)
        return layer, column

    def table(self) -> Table:
        """Return one row per layer, each cell with the target's probability and the KL."""
        title = f"p({self.target_token!r}), unchanged {chance(self.natural)}, and KL in nats"
        table = Table([">layer", *(f">{name}" for name in self.columns)], title)
        for layer, row in zip((*self.layers, "all"), (*self.cells, self.together), strict=True):
            table.add(layer, *(f"{chance(cell.probability)} {cell.kl:.2f}" for cell in row))
        return table

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return record_of(
            self.model,
            self.kind,
            self.prompts,
            units={"kl": "nats, KL(unchanged || changed)"},
            layers=list(self.layers),
            columns=list(self.columns),
            target={"id": self.target, "token": self.target_token, "natural": self.natural},
            cells=[[asdict(cell) for cell in row] for row in self.cells],
            together=[asdict(cell) for cell in self.together],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the KL: layers over columns."""
        from mi_ref.analysis.plots import heat_map

        heat_map(
            path, [[cell.kl for cell in row] for row in self.cells],
            rows=[str(layer) for layer in self.layers],
            columns=[name.removeprefix("head ") for name in self.columns],
            title=self.kind.replace("_", " ").capitalize(), row_label="layer",
            column_label="head" if self.kind == "state_patching" else "token",
            unit="KL(unchanged || changed), nats",
        )  # fmt: skip


def state_knockout_sweep(
    model: Model,
    prompt: Prompt,
    *,
    target: str | int | None = None,
    positions: Places = None,
    layers: Places = None,
    heads: Sequence[int] | None = None,
    prepend_bos: bool | None = None,
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
    """
    tokens = one_prompt(model, prompt, prepend_bos)
    chosen = places(positions, len(tokens), "positions")
    numbers = places(layers, model.cfg.n_layers, "layers")
    clean = model.run(tokens, logits="last")
    base = untouched(clean, target)

    def knocked(position: int, where: Sequence[int]) -> Outcome:
        edits = state_knockout([position], layers=where, heads=heads)
        return base.outcome(model.run(tokens, logits="last", edits=edits))

    names = position_names(model, tokens)
    return StateGrid(
        kind="state_knockout",
        cells=tuple(tuple(knocked(pos, [n]) for pos in chosen) for n in tracked(numbers, "layers")),
        layers=numbers,
        columns=tuple(names[pos] for pos in chosen),
        together=tuple(knocked(pos, numbers) for pos in chosen),
        natural=base.outcome(clean).probability,
        target=base.target,
        target_token=base.token,
        prompts=(tokens,),
        model=model,
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
    base = untouched(clean, target)

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
        model=model,
    )


def _state(run: Run) -> State:
    if run.state is None:
        raise ShapeError(
            f"{run.model.source.name} attends and hands on no state: patch its residual stream or"
            " its heads instead."
        )
    return run.state
