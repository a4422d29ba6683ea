"""What kind of attention head it is: previous-token, duplicate-token and induction scores.

A score is the weight that a head gives to the keys that such a head looks at: the token before;
earlier occurrences of the same token; the tokens that followed them. On repeated random tokens,
where nothing but the repetition helps, these tell what the heads do.

Source: TransformerLens ``head_detector.py`` for the keys; Olsson et al., arXiv:2209.11895, for
induction heads and repeated random tokens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, get_args

from mi_ref._typing import Array, Bool, Float, Int, Namespace
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.attention.patterns import layer_patterns
from mi_ref.analysis.attention.repeated_tokens import repeated_tokens
from mi_ref.errors import ArgumentError, ShapeError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.plots import heat_map
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.prompt import Prompt

Kind: TypeAlias = Literal["previous_token", "duplicate_token", "induction"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Over: TypeAlias = Literal["matching", "all"]


@dataclass(frozen=True, slots=True)
class HeadScore:
    """How much one head is of a kind."""

    layer: int
    head: int
    score: float

    def __str__(self) -> str:
        return f"{self.layer}.{self.head}"


@dataclass(frozen=True, slots=True, repr=False)
class HeadScores(Result):
    """How much each head is of each kind.

    Attributes
    ----------
    scores : dict
        By kind, ``[layer][head]``, each from 0 to 1; without a kind that the prompt cannot show,
        because no token of it occurs twice.
    over : {"matching", "all"}
        Over which queries the mean goes; see `head_scores`.
    tokens : tuple of tuple of int
        The prompts.
    seed : int or None
        Seed of random prompts.
    """

    scores: dict[Kind, tuple[tuple[float, ...], ...]]
    over: Over
    tokens: tuple[tuple[int, ...], ...]
    seed: int | None
    origin: Origin = field(compare=False)

    def of(self, kind: Kind) -> tuple[HeadScore, ...]:
        """Return every head's score of a kind, highest first.

        Raises
        ------
        ShapeError
            If the prompt cannot show it.
        """
        heads = [
            HeadScore(layer, head, score)
            for layer, row in enumerate(self.grid(kind))
            for head, score in enumerate(row)
        ]
        return tuple(sorted(heads, key=lambda found: -found.score))

    def grid(self, kind: Kind) -> tuple[tuple[float, ...], ...]:
        """Return ``[layer][head]`` of a kind; see `of`."""
        if kind not in KINDS:
            raise ArgumentError(f"kind={kind!r}: expected one of {', '.join(map(repr, KINDS))}.")
        if kind not in self.scores:
            raise ShapeError(
                f"no token of these prompts occurs twice, so they show no {kind} heads: take a"
                " prompt with repetitions, or none for repeated random tokens."
            )
        return self.scores[kind]

    def table(self, top: int = 5) -> Table:
        """Return the `top` heads of each kind."""
        shape = f"{len(self.tokens)} × {len(self.tokens[0])} tokens"
        what = shape if self.seed is None else f"{shape}, random and repeated (seed {self.seed})"
        headings = (part for kind in self.scores for part in (kind.replace("_", " "), ">score"))
        table = Table([">rank", *headings], f"heads (layer.head) on {what}")
        for rank, heads in enumerate(zip(*map(self.of, self.scores), strict=True), start=1):
            if rank <= top:
                cells = (text for found in heads for text in (found, f"{found.score:.3f}"))
                table.add(rank, *cells)
        return table

    def summary(self) -> str:
        """Return the strongest head of each kind, as a sentence."""
        if not self.scores:
            return "A prompt of one token has no token to look back at."
        best = ((kind.replace("_", "-"), self.of(kind)[0]) for kind in self.scores)
        shown = ", ".join(f"{kind} {head} ({head.score:.3f})" for kind, head in best)
        return f"Highest scores: {shown}."

    def record(self) -> dict[str, Any]:
        """Return every score."""
        return record_of(
            self,
            "head_scores",
            self.tokens,
            seed=self.seed,
            over=self.over,
            scores={kind: [list(row) for row in grid] for kind, grid in self.scores.items()},
        )

    def plot(self, path: str | os.PathLike[str], kind: Kind = "induction") -> None:
        """Draw layers over heads for one kind."""
        grid = self.grid(kind)
        heat_map(
            path,
            grid,
            rows=[str(layer) for layer in range(len(grid))],
            columns=[str(head) for head in range(len(grid[0]))],
            title=f"{kind.replace('_', '-').capitalize()} heads",
            row_label="layer",
            column_label="head",
            unit="score",
        )


def head_scores(
    model: Model,
    prompt: Prompt | None = None,
    *,
    over: Over = "matching",
    period: int = 24,
    n_prompts: int = 8,
    seed: int = 0,
    prepend_bos: bool | None = None,
) -> HeadScores:
    """Score every head as a previous-token, duplicate-token and induction head.

    Parameters
    ----------
    model : Model
        With attention.
    prompt : str, sequence of int, Array, or None
        Text or token ids, one prompt or several of one length; None for
        ``repeated_tokens(model, period, n_prompts, seed)``.
    over : {"matching", "all"}
        The mean goes over the queries that have such a key, so that a perfect head scores 1; or
        over all queries, as in TransformerLens' ``detect_head``, where a perfect induction head
        scores below 0.5.
    period, n_prompts, seed : int
        Shape and seed of repeated random tokens.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If the model has no patterns.
    """
    if over not in get_args(Over):
        raise ArgumentError(f"over={over!r}: expected 'matching' or 'all'.")
    tokens = (
        repeated_tokens(model, period, n_prompts, seed)
        if prompt is None
        else model.to_tokens(prompt, prepend_bos=prepend_bos)
    )
    xp, host = model.backend.xp, model.backend.to_host
    rows: list[list[int]] = host(tokens).tolist()
    masks = {kind: _keys(tokens, kind, xp) for kind in KINDS}
    n_matching = {
        kind: int(xp.sum(xp.astype(xp.any(mask, axis=-1), xp.int64)))
        for kind, mask in masks.items()
    }
    shown = [kind for kind in KINDS if n_matching[kind]]
    scores: dict[Kind, list[tuple[float, ...]]] = {kind: [] for kind in shown}
    for _, pattern in layer_patterns(model, tokens, range(model.cfg.n_layers)):
        for kind in shown:
            n_queries = n_matching[kind] if over == "matching" else len(rows) * len(rows[0])
            total = _weight_on(pattern, masks[kind], xp)
            scores[kind].append(tuple((host(total) / n_queries).tolist()))
    return HeadScores(
        scores={kind: tuple(grid) for kind, grid in scores.items()},
        over=over,
        tokens=tuple(map(tuple, rows)),
        seed=whole(seed, "seed") if prompt is None else None,
        origin=model.origin,
    )


def _keys(
    tokens: Int[Array, "batch pos"], kind: Kind, xp: Namespace
) -> Bool[Array, "batch query_pos key_pos"]:
    """Return which keys a head of this kind looks at."""
    places = xp.arange(tokens.shape[1], dtype=xp.int64, device=tokens.device)
    query, key = places[None, :, None], places[None, None, :]
    same = tokens[:, :, None] == tokens[:, None, :]
    match kind:
        case "previous_token":
            return xp.broadcast_to(key == query - 1, same.shape)
        case "duplicate_token":
            return xp.logical_and(same, key < query)
        case "induction":
            # One key on: the token after. After a doubled token that is the query itself.
            after = xp.concat([xp.zeros_like(same[:, :, :1]), same[:, :, :-1]], axis=-1)
            return xp.logical_and(after, key <= query)


def _weight_on(
    pattern: Float[Array, "batch head query_pos key_pos"],
    keys: Bool[Array, "batch query_pos key_pos"],
    xp: Namespace,
) -> Float[Array, " head"]:
    """Return the weight on `keys`, summed over rows and queries in float64."""
    weight = xp.sum(xp.where(keys[:, None, :, :], pattern, xp.zeros_like(pattern)), axis=-1)
    return xp.sum(xp.astype(weight, xp.float64), axis=(0, 2))
