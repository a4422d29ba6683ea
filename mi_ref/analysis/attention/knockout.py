"""What the next token loses when attention edges are cut.

Edges are cut before the softmax and after any soft-cap, so that a cut edge has weight zero and the
other keys share what it had: the pattern becomes the softmax over the keys that are left.

Source: Geva et al., arXiv:2304.14767, "attention knockout".
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from mi_ref import do
from mi_ref.analysis.arguments.prompts import one_prompt, place, places
from mi_ref.analysis.attention.edges import edge_weight, logits_for, refuse_unseen
from mi_ref.analysis.attention.looks import listed
from mi_ref.analysis.measure.comparison import Change, Comparison, compare, plot_changes
from mi_ref.edits.intervention import Places
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, chance
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True, repr=False)
class AttentionKnockout(Result):
    """What cutting edges did to the next token.

    Attributes
    ----------
    comparison : Comparison
        Compares the intact run with the run without the edges.
    target : Change
        What happened to the token that was followed.
    weight : float
        What the edges had: their summed weight, as a mean over queries, heads and layers.
    position : int
        Whose next token was compared.
    layers, heads, queries, keys : tuple of int
        Where they were cut: from every query to every key that it sees.
    """

    comparison: Comparison
    target: Change
    weight: float
    position: int
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    queries: tuple[int, ...]
    keys: tuple[int, ...]
    n_heads: int
    """The model's number of heads."""
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return the tokens that changed most, the target first."""
        table = Table(
            ["token", ">id", ">before", ">after", ">change", ">logit change"],
            f"{self._where()} (weight {chance(self.weight)}): KL {self.comparison.kl:.4g} nats",
        )
        for c in self._changes():
            table.add(
                repr(c.token),
                c.id,
                chance(c.before),
                chance(c.after),
                f"{c.after - c.before:+.4f}",
                f"{c.logit_change:+.3f}",
                style="bold" if c.id == self.target.id else "",
            )
        return table

    def summary(self) -> str:
        """Return what became of the target, as a sentence."""
        return f"{self.target.course()}: KL {self.comparison.kl:.4g} nats."

    def record(self) -> dict[str, Any]:
        """Return where was cut and what it did."""
        return record_of(
            self,
            "attention_knockout",
            self.comparison.tokens,
            units={"kl": "nats, KL(before || after)", "logit_change": "after - before"},
            layers=list(self.layers),
            heads=list(self.heads),
            queries=list(self.queries),
            keys=list(self.keys),
            weight=self.weight,
            position=self.position,
            kl=self.comparison.kl,
            target=asdict(self.target),
            changes=[asdict(c) for c in self.comparison.changes],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the probabilities of those tokens, before and after."""
        title = f"{self._where()}: KL {self.comparison.kl:.4g} nats"
        plot_changes(path, self._changes(), title)

    def _where(self) -> str:
        where = (
            f"{listed(self.queries)} → {listed(self.keys)} cut in {listed(self.layers, 'layer')}"
        )
        if len(self.heads) < self.n_heads:
            where += f", {listed(self.heads, 'head')}"
        return where

    def _changes(self) -> list[Change]:
        """Return the tokens to show, the target first."""
        return [self.target, *(c for c in self.comparison.changes if c.id != self.target.id)]


def attention_knockout(
    model: Model,
    prompt: Prompt,
    *,
    layers: Places = None,
    heads: Places = None,
    queries: Places = -1,
    keys: Places = 0,
    target: str | int | None = None,
    position: int = -1,
    top: int = 10,
    prepend_bos: bool | None = None,
) -> AttentionKnockout:
    """Cut attention edges and compare the next token.

    Parameters
    ----------
    model : Model
        With attention.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    layers : int, slice, sequence, or None
        Where to cut; None for the middle layer, ``slice(None)`` for all.
    heads : int, slice, sequence, or None
        Whose edges; None for all heads.
    queries, keys : int, slice, sequence, or None
        Who may no longer look at whom: by default the last position at the first. None for all.
    target : str, int or None
        The token to follow: an id, or a text that is exactly one token. None: what the model
        predicts as it is.
    position : int
        Whose next token to compare.
    top : int
        How many of the tokens that changed most to keep.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If none of the queries sees any of the keys; or if one is left with nothing to look at,
        whose softmax would be NaN.
    ShapeError
        If a layer, head or position is out of range.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    n_pos, n_layers = len(ids), model.cfg.n_layers
    chosen = (n_layers // 2,) if layers is None else places(layers, n_layers, "layers")
    cut_heads = places(heads, model.cfg.n_heads, "heads")
    rows, columns = places(queries, n_pos, "queries"), places(keys, n_pos, "keys")
    where = place(position, n_pos, "position")
    followed = None if target is None else model.origin.token_id(target)
    refuse_unseen(model, chosen, rows, columns)
    wanted, there = logits_for(where, n_pos)
    seen = [capture(at.pattern[layer], pos=rows) for layer in chosen]
    before = model.run(ids, capture=seen, logits=wanted)
    cut = do.knockout(rows, columns, heads=cut_heads)
    after = model.run(ids, edits=[(at.attn_scores[n], cut) for n in chosen], logits=wanted)
    comparison = compare(before, after, position=there, top=top)
    if followed is None:
        followed = before.top(1, pos=there)[0].id
    weights = [edge_weight(before, layer, cut_heads, columns) for layer in chosen]
    return AttentionKnockout(
        comparison=comparison,
        target=comparison.change(followed),
        weight=sum(weights) / len(weights),
        position=where,
        layers=chosen,
        heads=cut_heads,
        queries=rows,
        keys=columns,
        n_heads=model.cfg.n_heads,
        origin=model.origin,
    )
