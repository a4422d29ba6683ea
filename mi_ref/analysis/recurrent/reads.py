"""What every head of a recurrent model reads from one position, in all layers.

The weights are those of `mi_ref.analysis.effective_attention`: exact and signed, so that times
``at.rwkv_v`` they give ``at.rwkv_wkv``; or candle-mi's view of them, ``"relu_l1"``, without the
negative ones and with sum one, which gives nothing back.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal

from mi_ref.analysis.arguments.prompts import one_prompt, place, position_names
from mi_ref.analysis.recurrent.effective_attention import effective_attention
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.prompt import Prompt

Normalize = Literal["relu_l1"] | None


@dataclass(frozen=True, slots=True, repr=False)
class StateReads(Result):
    """How much of each token's value the heads read at one position.

    Attributes
    ----------
    weights : tuple
        By layer, head and token read.
    query : int
        The position that reads.
    normalize : "relu_l1" or None
        None: signed and exact.
    tokens : tuple of int
        The prompt's.
    """

    weights: tuple[tuple[tuple[float, ...], ...], ...]
    query: int
    normalize: Normalize
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per head, one column per token."""
        shown = position_names(self.origin, self.tokens)[: self.query + 1]
        kind = "signed" if self.normalize is None else "positive part, sum one"
        table = Table(
            [">head", *(f">{name}" for name in shown)],
            f"effective attention of position {self.query}, {kind}",
        )
        for name, row in self._rows():
            table.add(name, *(f"{weight:.3f}" for weight in row[: self.query + 1]))
        return table

    def summary(self) -> str:
        """Return which head reads most, and of which token, as a sentence."""
        weight, layer, head, key = max(
            (
                (weight, layer, head, key)
                for layer, heads in enumerate(self.weights)
                for head, row in enumerate(heads)
                for key, weight in enumerate(row)
            ),
            key=lambda each: abs(each[0]),
        )
        token = self.origin.token_string(self.tokens[key])
        return f"Head {layer}.{head} reads most: {weight:+.3f} of {key} {token!r}."

    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON."""
        return record_of(
            self,
            "state_reads",
            self.tokens,
            axes="layer, head, key_pos",
            query=self.query,
            normalize=self.normalize,
            weights=self.weights,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw heads over tokens."""
        from mi_ref.output.plots import heat_map

        names, rows = zip(*self._rows(), strict=True)
        heat_map(
            path, rows, rows=names, columns=position_names(self.origin, self.tokens),
            title=f"What position {self.query} reads", row_label="head", column_label="token",
            unit="effective attention", centred=self.normalize is None,
        )  # fmt: skip

    def _rows(self) -> list[tuple[str, tuple[float, ...]]]:
        return [
            (f"{layer}.{head}", row)
            for layer, heads in enumerate(self.weights)
            for head, row in enumerate(heads)
        ]


def state_reads(
    model: Model,
    prompt: Prompt,
    *,
    query: int = -1,
    normalize: Normalize = None,
    prepend_bos: bool | None = None,
) -> StateReads:
    """Return what every head reads at one position.

    Parameters
    ----------
    model : Model
        A recurrent one.
    prompt : str, sequence of int, or Array
        One prompt.
    query : int
        The position that reads.
    normalize : {"relu_l1"} or None
        As for `effective_attention`.
    prepend_bos : bool or None
        As for `Model.run`.
    """
    tokens = one_prompt(model, prompt, prepend_bos)
    reader = place(query, len(tokens), "query")
    # What stands after the reader cannot matter.
    seen = capture(at.rwkv_effective_attn[:], pos=[-1])
    run = model.run(tokens[: reader + 1], capture=[seen], logits="none")
    later = (0.0,) * (len(tokens) - reader - 1)
    weights = []
    for layer in range(model.cfg.n_layers):
        found = effective_attention(run, layer, normalize=normalize)
        heads = model.backend.to_host(found)[0, :, 0, :].tolist()
        weights.append(tuple((*row, *later) for row in heads))
    return StateReads(tuple(weights), reader, normalize, tokens, model.origin)
