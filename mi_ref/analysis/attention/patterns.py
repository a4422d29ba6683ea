"""Where attention looks: the patterns of a prompt, head by head, and what they come to.

For each head, at any position: the keys it looks at most, its weight on the first token (the
"sink"), its entropy and its mean distance; and all of these for the mean over heads, which is a
pattern too.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import one_prompt, place, places
from mi_ref.analysis.attention.looks import Look, listed, look_of, look_table
from mi_ref.analysis.lens.plot import shown
from mi_ref.edits.intervention import Places
from mi_ref.errors import ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.plots import heat_map
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, chance
from mi_ref.run import Run
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True, repr=False)
class AttentionPatterns(Result):
    """Attention patterns of one prompt.

    Attributes
    ----------
    tokens, str_tokens : tuple
        Ids and texts of the prompt's tokens.
    layers, heads : tuple of int
        Which were looked at. Means over heads are over these.
    position : int
        What `table` and `record` are about.
    patterns : tuple of Array
        By layer, ``[head, query_pos, key_pos]``, in main memory: probabilities.
    n_top : int
        Keys to name.
    n_layers, n_heads : int
        The model's sizes.
    """

    tokens: tuple[int, ...]
    str_tokens: tuple[str, ...]
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    position: int
    patterns: tuple[Float[Array, "head query_pos key_pos"], ...] = field(compare=False)
    n_top: int
    n_layers: int
    n_heads: int
    origin: Origin = field(compare=False)

    def pattern(self, layer: int, head: int | None = None) -> Float[Array, "query_pos key_pos"]:
        """Return the pattern of a head, or the mean over heads."""
        held = self.patterns[self.layers.index(self._layer(layer))]
        return held.mean(axis=0) if head is None else held[self.heads.index(self._head(head))]

    def attention_from(
        self, layer: int, position: int | None = None, head: int | None = None
    ) -> tuple[float, ...]:
        """Return the weight that a position gives to each key; None is the table's position."""
        row = self.pattern(layer, head)[self._position(position)]
        return tuple(row.tolist())

    def attention_to(self, layer: int, position: int, head: int | None = None) -> tuple[float, ...]:
        """Return the weight that a position gets from each query."""
        column = self.pattern(layer, head)[:, self._position(position)]
        return tuple(column.tolist())

    def look(self, layer: int, head: int | None = None, position: int | None = None) -> Look:
        """Return where a position looks in a head, or in the mean over heads."""
        query = self._position(position)
        return look_of(
            self.attention_from(layer, query, head),
            self.str_tokens,
            layer=self._layer(layer),
            head=None if head is None else self._head(head),
            position=query,
            top=self.n_top,
        )

    def peak(self, key: int = 0, position: int | None = None) -> Look:
        """Return the layer in which a position gives most weight to `key`, in the mean of heads."""
        column = self._position(key)
        best = max(self.layers, key=lambda n: self.attention_from(n, position)[column])
        return self.look(best, position=position)

    def table(self, layer: int | None = None) -> Table:
        """Return a row per layer, of the mean over heads; of one layer, a row per head."""
        where = f"attention from position {self.position}, {self.str_tokens[self.position]!r}"
        if layer is None:
            rows = [(str(n), self.look(n)) for n in self.layers]
            return look_table("layer", rows, f"{where}: mean over {listed(self.heads, 'heads')}")
        rows = [(str(head), self.look(layer, head)) for head in self.heads]
        rows.append(("mean", self.look(layer)))
        return look_table("head", rows, f"{where}: layer {rows[0][1].layer}")

    def summary(self) -> str:
        """Return the head that gives most weight to another token than the first, as a sentence."""
        if self.position == 0:
            return "The first position can look at itself only."
        weight, layer, head, key = max(
            (weight, layer, head, key)
            for layer in self.layers
            for head in self.heads
            for key, weight in enumerate(self.attention_from(layer, None, head))
            if key > 0
        )
        return (
            f"Apart from the first token, {key} {self.str_tokens[key]!r} gets most:"
            f" {chance(weight)} of the weight of head {layer}.{head}."
        )

    def record(self) -> dict[str, Any]:
        """Return every head's look from `position` and its whole row, but not whole patterns."""
        looks = [
            {**asdict(self.look(n, head)), "weights": list(self.attention_from(n, None, head))}
            for n in self.layers
            for head in (*self.heads, None)
        ]
        return record_of(
            self,
            "attention_patterns",
            self.tokens,
            units={"entropy": "nats", "distance": "tokens", "head": "null for the mean of heads"},
            position=self.position,
            layers=list(self.layers),
            heads=list(self.heads),
            looks=looks,
        )

    def plot(
        self, path: str | os.PathLike[str], layer: int | None = None, head: int | None = None
    ) -> None:
        """Draw the pattern of a head, or the mean over heads; None is the last layer held."""
        layer = self.layers[-1] if layer is None else self._layer(layer)
        names = [shown(token) for token in self.str_tokens]
        whose = f"layer {layer}, mean over heads"
        if head is not None:
            whose = f"head {layer}.{self._head(head)}"
        heat_map(
            path,
            # The first query on top, as patterns are drawn.
            self.pattern(layer, head)[::-1].tolist(),
            rows=names[::-1],
            columns=names,
            title=f"Attention pattern of {whose}",
            row_label="from",
            column_label="to",
            unit="weight",
        )

    def _position(self, position: int | None) -> int:
        if position is None:
            return self.position
        return place(position, len(self.tokens), "position")

    def _layer(self, layer: int) -> int:
        found = place(layer, self.n_layers, "layer")
        if found not in self.layers:
            raise ShapeError(f"layer {found} was not looked at; {listed(self.layers)} were.")
        return found

    def _head(self, head: int) -> int:
        (found,) = places(head, self.n_heads, "head")
        if found not in self.heads:
            raise ShapeError(f"head {found} was not looked at; {listed(self.heads)} were.")
        return found


def attention_patterns(
    model: Model,
    prompt: Prompt,
    *,
    layers: Places = None,
    heads: Places = None,
    position: int = -1,
    top: int = 5,
    prepend_bos: bool | None = None,
) -> AttentionPatterns:
    """Look at a prompt's attention patterns.

    Parameters
    ----------
    model : Model
        With attention; a recurrent one has `mi_ref.analysis.effective_attention`.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    layers, heads : int, slice, sequence, or None
        Which to keep; None for all. Keeping few bounds the memory to them, at ``n_pos ** 2``
        numbers each.
    position : int
        From where to look, in the table; negative counts from the end.
    top : int
        How many keys to name.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    ShapeError
        If a layer, head or position is out of range.
    HookError
        If the model has no patterns.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    if whole(top, "top") < 1:
        raise ShapeError(f"top={top}: at least one key has to be named.")
    wanted = places(layers, model.cfg.n_layers, "layers")
    kept = places(heads, model.cfg.n_heads, "heads")
    position = place(position, len(ids), "position")
    xp = model.backend.xp
    found = {}
    for layer, pattern in layer_patterns(model, ids, wanted):
        chosen = xp.asarray(list(kept), dtype=xp.int64, device=pattern.device)
        found[layer] = model.backend.to_host(xp.take(pattern[0, ...], chosen, axis=0))
    return AttentionPatterns(
        tokens=ids,
        str_tokens=tuple(map(model.token_string, ids)),
        layers=wanted,
        heads=kept,
        position=position,
        patterns=tuple(found[layer] for layer in wanted),
        n_top=top,
        n_layers=model.cfg.n_layers,
        n_heads=model.cfg.n_heads,
        origin=model.origin,
    )


def layer_patterns(
    model: Model, tokens: Prompt, layers: Sequence[int]
) -> Iterator[tuple[int, Float[Array, "batch head query_pos key_pos"]]]:
    """Yield each layer's pattern from the first to the last; only one is held at a time.

    One forward pass in all, in stretches from layer to layer.
    """
    run: Run | None = None
    done = 0
    for layer in sorted(layers):
        wanted = [capture(at.pattern[layer])]
        if run is None:
            run = model.run(tokens, capture=wanted, stop_at_layer=layer + 1, logits="none")
        else:
            run = model.run(
                run, start_at_layer=done, stop_at_layer=layer + 1, capture=wanted, logits="none"
            )
        done = layer + 1
        yield layer, run[at.pattern[layer]]
