"""Which attention edges the next token hangs on: each layer's edges to each key cut in turn.

Source: Geva et al., arXiv:2304.14767, "attention knockout".
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Unpack

from mi_ref import do
from mi_ref._typing import Array
from mi_ref.analysis.arguments.prompts import one_prompt, place, places, position_names
from mi_ref.analysis.attention.edges import logits_for, refuse_unseen, sees
from mi_ref.analysis.attention.looks import listed
from mi_ref.analysis.measure.comparison import Change
from mi_ref.analysis.measure.metrics import Logit, Metric, Probability, divergence, token
from mi_ref.analysis.sweeps.sweep import SweepCell, SweepOptions, sweep
from mi_ref.edits.intervention import Places
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.plots import heat_map
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Styled, Table, chance
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True)
class EdgeCut:
    """What cutting the edges to one key in one layer did."""

    layer: int
    key: int
    kl: float
    """``KL(before ‖ after)`` in nats."""
    target: Change


@dataclass(frozen=True, slots=True, repr=False)
class KnockoutGrid(Result):
    """What each cut did to the next token.

    Attributes
    ----------
    cuts : tuple of tuple of EdgeCut or None
        By layer, then key; None where no query sees the key.
    layers, keys : tuple of int
        Rows and columns.
    heads : tuple of int
        Whose edges were cut.
    queries : tuple of int or None
        Whose; None for all positions after the key.
    position : int
        Whose next token was compared.
    tokens, names : tuple
        The prompt's ids, and its tokens as headings show them.
    """

    cuts: tuple[tuple[EdgeCut | None, ...], ...]
    layers: tuple[int, ...]
    keys: tuple[int, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...] | None
    position: int
    tokens: tuple[int, ...]
    names: tuple[str, ...]
    n_heads: int
    """The model's number of heads."""
    origin: Origin = field(compare=False)

    def strongest(self, n: int = 1) -> tuple[EdgeCut, ...]:
        """Return the cuts with most effect, largest KL first."""
        done = [cut for row in self.cuts for cut in row if cut is not None]
        return tuple(sorted(done, key=lambda cut: -cut.kl)[:n])

    def table(self) -> Table:
        """Return KL by layer (rows) and key (columns), each layer's largest in bold."""
        table = Table(
            [">layer", *(f">{self.names[key]}" for key in self.keys)],
            f"KL in nats at position {self.position}; cut edges {self._edges()}",
        )
        for layer, row in zip(self.layers, self.cuts, strict=True):
            most = max((cut.kl for cut in row if cut is not None), default=0.0)
            cells = (
                Styled(("", ""))
                if cut is None
                else Styled((chance(cut.kl), "bold" if cut.kl == most else ""))
                for cut in row
            )
            table.add(layer, *cells)
        return table

    def summary(self) -> str:
        """Return which cut matters most, as a sentence."""
        cut = self.strongest()[0]
        return (
            f"Cutting {self.names[cut.key]} in layer {cut.layer} changes most, KL {chance(cut.kl)}"
            f" nats: {cut.target.course()}."
        )

    def record(self) -> dict[str, Any]:
        """Return every cut."""
        return record_of(
            self,
            "knockout_grid",
            self.tokens,
            units={"kl": "nats, KL(before || after)", "logit_change": "after - before"},
            layers=list(self.layers),
            keys=list(self.keys),
            heads=list(self.heads),
            queries=None if self.queries is None else list(self.queries),
            position=self.position,
            cuts=[[None if cut is None else asdict(cut) for cut in row] for row in self.cuts],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw KL by layer and key; keys that no query sees are drawn as zero."""
        heat_map(
            path,
            [[0.0 if cut is None else cut.kl for cut in row] for row in self.cuts],
            rows=[str(layer) for layer in self.layers],
            columns=[self.names[key] for key in self.keys],
            title=f"Attention knockout {self._edges()}",
            row_label="layer",
            column_label="to key",
            unit="KL in nats",
        )

    def _edges(self) -> str:
        edges = "from later positions" if self.queries is None else listed(self.queries, "from")
        if len(self.heads) < self.n_heads:
            edges += f", {listed(self.heads, 'heads')}"
        return edges


def knockout_grid(
    model: Model,
    prompt: Prompt,
    *,
    layers: Places = None,
    heads: Places = None,
    queries: Places = -1,
    keys: Places = None,
    target: str | int | None = None,
    position: int = -1,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> KnockoutGrid:
    """EdgeCut the edges to each key in each layer, one after the other, and compare the next token.

    Parameters
    ----------
    model : Model
        With attention.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    layers, keys : int, slice, sequence, or None
        Rows and columns of the grid; None for all.
    heads : int, slice, sequence, or None
        Whose edges; None for all heads.
    queries : int, slice, sequence, or None
        From where: by default the last position. None for every position after the key.
    target : str, int or None
        The token to follow: an id, or a text that is exactly one token. None: what the model
        predicts as it is.
    position : int
        Whose next token to compare.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweeps.sweep.sweep`: ``rows``, ``executor``, ``resume``.

    Raises
    ------
    HookError
        If there is no edge to cut, or a query would be left with nothing to look at.
    ShapeError
        If a layer, head or position is out of range.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    rows, columns = places(layers, model.cfg.n_layers, "layers"), places(keys, len(ids), "keys")
    cut_heads = places(heads, model.cfg.n_heads, "heads")
    fixed = None if queries is None else places(queries, len(ids), "queries")
    where = place(position, len(ids), "position")
    followed = None if target is None else model.origin.token_id(target)
    refuse_unseen(model, rows, range(1, len(ids)) if fixed is None else fixed, columns)
    wanted, there = logits_for(where, len(ids))
    before = model.run(ids, logits=wanted).logits_at(there)
    if followed is None:
        followed = int(model.backend.xp.argmax(before))
    metrics = _metrics(model, before, followed)
    edits = {
        (layer, key): do.knockout(seeing, key, heads=cut_heads)
        for layer in rows
        for key in columns
        if (seeing := _seeing(model, layer, key, len(ids), fixed))
    }
    cells = [
        SweepCell(((at.attn_scores[layer], edit),), label=f"layer {layer}, key {key}")
        for (layer, key), edit in edits.items()
    ]
    found = sweep(model, ids, cells, metrics, position=where, **options).values
    intact = tuple(float(metric(before, xp=model.backend.xp)) for metric in metrics)
    cuts = {
        (layer, key): EdgeCut(layer, key, after[0], _change(model, followed, intact, after))
        for (layer, key), after in zip(edits, found, strict=True)
    }
    return KnockoutGrid(
        cuts=tuple(tuple(cuts.get((layer, key)) for key in columns) for layer in rows),
        layers=rows,
        keys=columns,
        heads=cut_heads,
        queries=fixed,
        position=where,
        tokens=ids,
        names=position_names(model.origin, ids),
        n_heads=model.cfg.n_heads,
        origin=model.origin,
    )


def _seeing(
    model: Model, layer: int, key: int, n_pos: int, queries: Sequence[int] | None
) -> list[int]:
    """Return which queries see a key in a layer; of all after it, if none are named."""
    whose = range(key + 1, n_pos) if queries is None else queries
    seen = sees(model, layer, whose, [key])
    return [query for query, (sees_key,) in zip(whose, seen, strict=True) if sees_key]


def _metrics(model: Model, before: Array, target: int) -> tuple[Metric, Metric, Metric]:
    """Return the divergence from a prediction, and the target's probability and logit."""
    followed = token(model, target)
    return divergence(model, before), Probability(followed), Logit(followed)


def _change(model: Model, target: int, before: Sequence[float], after: Sequence[float]) -> Change:
    (_, chance_before, logit_before), (_, chance_after, logit_after) = before, after
    shift = logit_after - logit_before
    return Change(model.token_string(target), target, chance_before, chance_after, shift)
