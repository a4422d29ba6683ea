"""Factual routing: which heads look elsewhere when the subject becomes another one.

A block of layers is patched at the subject, as in `block_patching`, and each head's attention from
the last token to the subject is compared with that of the run as it is.

Source: the protocol of arXiv:2511.08579 for the patch; the comparison of patterns is candle-mi's.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_ref.analysis.arguments.prompts import places, position_names
from mi_ref.analysis.facts.pairs import FactPair, read_fact_pair
from mi_ref.analysis.patching.blocks import counterfactual_streams, patch_block
from mi_ref.edits.intervention import Places
from mi_ref.hooks.capture import Edits, capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.prompt import Prompt

_BLOCK = 4
"""Layers that are patched unless the caller says which."""


@dataclass(frozen=True, slots=True, repr=False)
class FactualRouting(Result):
    """Attention from the last token to the subject, by layer, then head, before and after.

    Attributes
    ----------
    before, after : tuple of tuple of float
        Attention probabilities, summed over the subject's positions.
    patched : tuple of int
        Layers of the patch.
    subject : tuple of int
        Its positions.
    tokens, counterfactual_tokens : tuple of int
        Tokens of the prompt that was patched, and of the one patched from.
    """

    before: tuple[tuple[float, ...], ...]
    after: tuple[tuple[float, ...], ...]
    patched: tuple[int, ...]
    subject: tuple[int, ...]
    tokens: tuple[int, ...]
    counterfactual_tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def changes(self) -> tuple[tuple[float, ...], ...]:
        """Return `after` less `before`, by layer and head."""
        lines = zip(self.before, self.after, strict=True)
        return tuple(tuple(b - a for a, b in zip(*line, strict=True)) for line in lines)

    def table(self, top: int = 10) -> Table:
        """Return the heads whose attention changed most."""
        table = Table(
            ["head", ">before", ">after", ">change"],
            f"attention {len(self.tokens) - 1} -> {', '.join(self._subject())}",
        )
        changes = self.changes()
        for n, h in self._sorted()[:top]:
            numbers = (self.before[n][h], self.after[n][h])
            table.add(f"{n}.{h}", *(f"{x:.4f}" for x in numbers), f"{changes[n][h]:+.4f}")
        return table

    def summary(self) -> str:
        """Return the head that changed most as a sentence."""
        n, h = self._sorted()[0]
        before, after = self.before[n][h], self.after[n][h]
        return f"Head {n}.{h} changes most: from {before:.4f} to {after:.4f}."

    def record(self) -> dict[str, Any]:
        """Return everything."""
        return record_of(
            self,
            "factual_routing",
            [self.tokens, self.counterfactual_tokens],
            prompts=["base", "counterfactual"],
            patched=list(self.patched),
            subject=list(self.subject),
            before=[list(line) for line in self.before],
            after=[list(line) for line in self.after],
            changes=[list(line) for line in self.changes()],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw a heat map of the changes, layers by heads."""
        from mi_ref.output.plots import heat_map

        changes = self.changes()
        heat_map(
            path,
            changes,
            rows=[str(n) for n in range(len(changes))],
            columns=[str(n) for n in range(len(changes[0]))],
            title=f"{self.origin.name}: last token -> {', '.join(self._subject())}",
            row_label="layer",
            column_label="head",
            unit="change of attention",
            centred=True,
        )

    def _sorted(self) -> list[tuple[int, int]]:
        """Return every layer and head, the largest change of either sign first."""
        changes = self.changes()
        heads = [(n, h) for n, line in enumerate(changes) for h in range(len(line))]
        return sorted(heads, key=lambda head: -abs(changes[head[0]][head[1]]))

    def _subject(self) -> list[str]:
        names = position_names(self.origin, self.tokens)
        return [names[pos] for pos in self.subject]


def factual_routing(
    model: Model,
    prompt: Prompt,
    counterfactual: Prompt,
    *,
    subject: str | Places = None,
    layers: Places = None,
    prepend_bos: bool | None = None,
) -> FactualRouting:
    """Patch the subject in a block of layers and compare every head's attention to it.

    Parameters
    ----------
    model : Model
        With attention patterns.
    prompt, counterfactual : str, sequence of int, or Array
        Two prompts of equal length.
    subject : str or Places
        A part of the prompt's text that occurs in it once, or positions; None for those at which
        the prompts differ.
    layers : Places
        Which to patch, at ``at.resid_post``; None for the first four. Heads of the first of them
        and before it cannot change.
    prepend_bos : bool or None
        As for `Model.run`.

    Returns
    -------
    FactualRouting
    """
    pair, where = read_fact_pair(model, FactPair(prompt, counterfactual, subject), prepend_bos)
    block = patched_layers(model, layers)
    held = counterfactual_streams(model, pair, block, where)
    edits = patch_block(held, block, where, slice(0, len(where)))
    return FactualRouting(
        before=_attention(model, pair.first, (), where),
        after=_attention(model, pair.first, edits, where),
        patched=block,
        subject=where,
        tokens=pair.first,
        counterfactual_tokens=pair.second,
        origin=model.origin,
    )


def patched_layers(model: Model, layers: Places) -> tuple[int, ...]:
    """Return the layers of the patch; see `factual_routing`.

    Raises
    ------
    ShapeError
        If one lies outside.
    """
    n_layers = model.cfg.n_layers
    first = tuple(range(min(_BLOCK, n_layers)))
    return first if layers is None else places(layers, n_layers, "layers")


def _attention(
    model: Model, tokens: tuple[int, ...], edits: Edits, subject: Sequence[int]
) -> tuple[tuple[float, ...], ...]:
    """Return the last token's attention to the subject, by layer and head."""
    wanted = capture(at.pattern[:], pos=-1)
    run = model.run(list(tokens), capture=[wanted], edits=edits, logits="none")
    xp, host = model.backend.xp, model.backend.to_host
    chosen = xp.asarray(list(subject), dtype=xp.int64, device=model.backend.device)
    lines = []
    for layer in range(model.cfg.n_layers):
        row = xp.astype(run[at.pattern[layer]][0, :, 0, :], xp.float64)
        lines.append(tuple(host(xp.sum(xp.take(row, chosen, axis=-1), axis=-1)).tolist()))
    return tuple(lines)
