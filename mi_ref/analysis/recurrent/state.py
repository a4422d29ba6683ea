"""How large a recurrent model's state is, how much each token changes it, how long it lasts.

The state of a head is a matrix ``[d_key, d_value]``; each token multiplies its rows with the decay,
takes something out (RWKV-7) and writes something in. Norms are Frobenius norms, in the state's own
units. Arithmetic on what was captured is in float64.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from mi_ref._typing import Array
from mi_ref.analysis.arguments.prompts import one_prompt, places, position_names
from mi_ref.edits.intervention import Places
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.run import Run
from mi_ref.text.prompt import Prompt

Numbers = tuple[tuple[tuple[float, ...], ...], ...]


@dataclass(frozen=True, slots=True, repr=False)
class StateNorms(Result):
    """How large the state is after each token, and how much that token changed it.

    Attributes
    ----------
    norms : tuple
        By layer, position and head: the norm of the state after the position.
    changes : tuple
        Likewise: the norm of that state less the one before, which is zero before the first token.
    positions : tuple of int
        Those looked at.
    tokens : tuple of int
        The prompt's.
    """

    norms: Numbers
    changes: Numbers
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def relative_change(self, layer: int, column: int) -> float:
        """Return change over norm, of all heads together, at one of `positions`; 0 of nothing."""
        size = math.hypot(*self.norms[layer][column])
        return math.hypot(*self.changes[layer][column]) / size if size else 0.0

    def table(self) -> Table:
        """Return one row per layer: norm of all heads together, and change as a share of it."""
        names = position_names(self.origin, self.tokens)
        table = Table(
            [">layer", *(f">{names[pos]}" for pos in self.positions)],
            "norm of the state, and the token's change of it as a share",
        )
        for layer, rows in enumerate(self.norms):
            cells = (
                f"{math.hypot(*heads):.3g} {self.relative_change(layer, column):.2f}"
                for column, heads in enumerate(rows)
            )
            table.add(layer, *cells)
        return table

    def summary(self) -> str:
        """Return which token after the first changes a state most, as a sentence."""
        # The first token makes all there is.
        later = [n for n, pos in enumerate(self.positions) if pos > 0]
        if not later:
            return "The first token makes all of the state that there is after it."
        share, layer, column = max(
            (self.relative_change(layer, n), layer, n)
            for layer in range(len(self.norms))
            for n in later
        )
        pos = self.positions[column]
        token = self.origin.token_string(self.tokens[pos])
        return (
            f"After the first token, {pos} {token!r} changes a state most: by {share:.2f} of its"
            f" norm, in layer {layer}."
        )

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return record_of(
            self,
            "state_norms",
            self.tokens,
            axes="layer, position, head",
            positions=list(self.positions),
            norms=self.norms,
            changes=self.changes,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw change over norm: layers over positions."""
        from mi_ref.output.plots import heat_map

        names = position_names(self.origin, self.tokens)
        columns = range(len(self.positions))
        values = [[self.relative_change(n, c) for c in columns] for n in range(len(self.norms))]
        heat_map(
            path, values, rows=[str(n) for n in range(len(values))],
            columns=[names[pos] for pos in self.positions], title="Change of the state",
            row_label="layer", column_label="token", unit="norm of the change / norm of the state",
        )  # fmt: skip


@dataclass(frozen=True, slots=True, repr=False)
class HalfLives(Result):
    """How long each head keeps what is written into it, were it for its decay alone.

    RWKV-7 also removes on purpose, which shortens a life further; see ``at.rwkv_kk``.

    Attributes
    ----------
    half_lives : tuple
        By layer, head and row of the state (``d_key``): tokens until half is left, at the mean
        logarithm of the decay over this prompt. Infinite where nothing decays, 0 where one token
        erases all.
    tokens : tuple of int
        The prompt's.
    """

    half_lives: Numbers
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per head: its shortest, median and longest half-life."""
        table = Table(
            [">layer", ">head", ">shortest", ">median", ">longest"], "half-life in tokens"
        )
        for layer, heads in enumerate(self.half_lives):
            for head, rows in enumerate(heads):
                shown = (min(rows), median(rows), max(rows))
                table.add(layer, head, *(f"{life:.3g}" for life in shown))
        return table

    def summary(self) -> str:
        """Return which head keeps longest what is written, as a sentence."""
        life, layer, head = max(
            (median(rows), layer, head)
            for layer, heads in enumerate(self.half_lives)
            for head, rows in enumerate(heads)
        )
        return (
            f"Head {layer}.{head} keeps longest: half of a row is left after {life:.3g} tokens, in"
            " the median."
        )

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return record_of(
            self,
            "half_lives",
            self.tokens,
            axes="layer, head, d_key",
            unit="tokens",
            half_lives=self.half_lives,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw each head's median."""
        from mi_ref.output.plots import heat_map

        values = [[median(rows) for rows in heads] for heads in self.half_lives]
        heat_map(
            path, values, rows=[str(n) for n in range(len(values))],
            columns=[str(n) for n in range(len(values[0]))], title="Half-life of the state",
            row_label="layer", column_label="head", unit="tokens, median over rows",
        )  # fmt: skip


def state_norms(
    model: Model, prompt: Prompt, *, positions: Places = None, prepend_bos: bool | None = None
) -> StateNorms:
    """Measure the state after each token of a prompt, and each token's change of it.

    Parameters
    ----------
    model : Model
        A recurrent one.
    prompt : str, sequence of int, or Array
        One prompt, read from an empty state.
    positions : int, slice, sequence or None
        Where to look; None for everywhere. One layer's states are held at a time.
    prepend_bos : bool or None
        As for `Model.run`.
    """
    tokens = one_prompt(model, prompt, prepend_bos)
    chosen = places(positions, len(tokens), "positions")
    needed = sorted({*chosen, *(pos - 1 for pos in chosen if pos > 0)})
    norms, changes = [], []
    run: Run | None = None
    for layer in range(model.cfg.n_layers):
        point = at.rwkv_state[layer]
        wanted = [capture(point, pos=needed)]
        if run is None:
            run = model.run(tokens, capture=wanted, stop_at_layer=1, logits="none")
        else:
            run = model.run(run, capture=wanted, start_at_layer=layer, stop_at_layer=layer + 1,
                            logits="none")  # fmt: skip
        now, earlier = _states(model, run[point], chosen, needed)
        norms.append(_norms(model, now))
        changes.append(_norms(model, now - earlier))
    return StateNorms(tuple(norms), tuple(changes), chosen, tokens, model.origin)


def half_lives(model: Model, prompt: Prompt, *, prepend_bos: bool | None = None) -> HalfLives:
    """Measure how long each row of each head's state lasts under its decay.

    Parameters
    ----------
    model : Model
        A recurrent one.
    prompt : str, sequence of int, or Array
        One prompt: decays depend on what is read.
    prepend_bos : bool or None
        As for `Model.run`.
    """
    tokens = one_prompt(model, prompt, prepend_bos)
    run = model.run(tokens, capture=[at.rwkv_decay[:]], logits="none")
    found = []
    for layer in range(model.cfg.n_layers):
        decays = model.backend.to_host(run[at.rwkv_decay[layer]])[0].tolist()
        heads = range(len(decays[0]))
        found.append(
            tuple(
                tuple(_half_life(rows) for rows in zip(*(pos[head] for pos in decays), strict=True))
                for head in heads
            )
        )
    return HalfLives(tuple(found), tokens, model.origin)


def _half_life(decays: Sequence[float]) -> float:
    """Return after how many tokens half is left, from the decay at each of some tokens."""
    if min(decays) == 0.0:
        return 0.0
    rate = -math.fsum(map(math.log, decays)) / len(decays)
    return math.log(2.0) / rate if rate > 0.0 else math.inf


def _states(
    model: Model, states: Array, chosen: Sequence[int], needed: Sequence[int]
) -> tuple[Array, Array]:
    """Return the states after chosen positions and those before them: [pos, head, key, value]."""
    xp = model.backend.xp
    exact = xp.astype(states[0, ...], xp.float64)
    # What the first token finds is zero.
    padded = xp.concat([exact, xp.zeros_like(exact[:1, ...])], axis=0)
    place = {pos: n for n, pos in enumerate(needed)} | {-1: len(needed)}

    def taken(shift: int) -> Array:
        order = [place[pos - shift] for pos in chosen]
        return xp.take(padded, xp.asarray(order, dtype=xp.int64, device=states.device), axis=0)

    return taken(0), taken(1)


def _norms(model: Model, states: Array) -> tuple[tuple[float, ...], ...]:
    xp = model.backend.xp
    found = xp.sqrt(xp.sum(states * states, axis=(-2, -1)))
    return tuple(map(tuple, model.backend.to_host(found).tolist()))
