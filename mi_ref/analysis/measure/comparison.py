"""Two predictions of the same thing compared: what an intervention did to the next token.

Divergences are exact, in float64 and log space, for each position; nothing is clamped, so that a
destroyed prediction shows as what it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.measure.distributions import kl_divergence, log_softmax
from mi_ref.backend import Backend
from mi_ref.errors import ShapeError
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table, chance
from mi_ref.run import Run


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one token."""

    token: str
    id: int
    before: float
    """Its probability in the first run."""
    after: float
    """In the second."""
    logit_change: float
    """Its logit in the second run less that in the first."""

    def course(self) -> str:
        """Return what became of the token, as a clause."""
        return f"{self.token!r} goes from {chance(self.before)} to {chance(self.after)}"


@dataclass(frozen=True, slots=True, repr=False)
class Comparison(Result):
    """What differs between two runs at one position.

    Attributes
    ----------
    kl : float
        ``KL(before ‖ after)`` in nats: what is lost by predicting as the second run where the
        first is true.
    changes : tuple of Change
        The tokens whose probability changed most, largest change first.
    position, row : int
        Where.
    tokens : tuple of int
        The prompt's.
    """

    kl: float
    changes: tuple[Change, ...]
    position: int
    row: int
    tokens: tuple[int, ...]
    before: Float[Array, " d_vocab"] = field(compare=False)
    """Logits."""
    after: Float[Array, " d_vocab"] = field(compare=False)
    backend: Backend = field(compare=False)
    origin: Origin = field(compare=False)

    def change(self, token: str | int) -> Change:
        """Return what happened to one token, given as an id or as exactly one token's text."""
        ids = [self.origin.token_id(token)]
        return _changes(self.backend, self.origin, self.before, self.after, ids)[0]

    def logit_difference(self, token: str | int, other: str | int) -> tuple[float, float]:
        """Return the logit of `token` less that of `other`, before and after."""
        first, second = (self.origin.token_id(t) for t in (token, other))
        host = self.backend.to_host
        return (
            float(host(self.before)[first] - host(self.before)[second]),
            float(host(self.after)[first] - host(self.after)[second]),
        )

    def table(self) -> Table:
        """Return the tokens that changed most."""
        table = Table(
            ["token", ">id", ">before", ">after", ">change", ">logit change"],
            f"KL {self.kl:.4g} nats at position {self.position}",
        )
        for c in self.changes:
            shift = c.after - c.before
            table.add(repr(c.token), c.id, chance(c.before), chance(c.after), f"{shift:+.4f}",
                      f"{c.logit_change:+.3f}")  # fmt: skip
        return table

    def record(self) -> dict[str, Any]:
        """Return everything but the logits."""
        from dataclasses import asdict

        return record_of(
            self,
            "comparison",
            self.tokens,
            position=self.position,
            row=self.row,
            kl=self.kl,
            changes=[asdict(c) for c in self.changes],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the probabilities of the tokens that changed most, before and after."""
        plot_changes(path, self.changes, f"KL {self.kl:.4g} nats at position {self.position}")


def plot_changes(path: str | os.PathLike[str], changes: Sequence[Change], title: str) -> None:
    """Draw tokens' probabilities before and after; see `plots.bars`."""
    from mi_ref.output.plots import bars

    bars(
        path,
        [repr(c.token) for c in changes],
        {"before": [c.before for c in changes], "after": [c.after for c in changes]},
        title=title,
        x_label="probability",
        y_label="next token",
    )


def compare(
    before: Run, after: Run, *, position: int = -1, row: int = 0, top: int = 10
) -> Comparison:
    """Compare two runs of one model at one position.

    Parameters
    ----------
    before, after : Run
        With logits there. Their prompts may differ.
    position : int
        Counted from either end of the row's own tokens; both runs need it.
    row : int
        A row of the batch.
    top : int
        How many of the tokens that changed most to keep.
    """
    backend, kept = before.backend, whole(top, "top")
    position, row = whole(position, "position"), whole(row, "row")
    if kept < 0:
        raise ShapeError(f"top={top}: how many tokens to keep is not negative.")
    if not after.origin.same_model(before.origin):
        raise ShapeError("compare: the two runs are of two models, whose tokens may not agree.")
    first, second = (run.logits_at(position, row) for run in (before, after))
    xp, host = backend.xp, backend.to_host
    log_p, log_q = (log_softmax(x, xp=xp) for x in (first, second))
    moved = xp.abs(xp.exp(log_p) - xp.exp(log_q))
    _, most = backend.ops.top_k(moved, min(kept, moved.shape[0]))
    tokens = () if before.tokens is None else tuple(host(before.tokens)[row].tolist())
    if before.padding is not None:
        tokens = tokens[before.padding.starts[row] : before.padding.stops[row]]
    return Comparison(
        kl=float(host(kl_divergence(log_p, log_q, xp=xp))),
        changes=tuple(_changes(backend, before.origin, first, second, host(most).tolist())),
        position=position,
        row=row,
        tokens=tokens,
        before=first,
        after=second,
        backend=backend,
        origin=before.origin,
    )


def _changes(
    backend: Backend, origin: Origin, before: Array, after: Array, ids: Sequence[int]
) -> list[Change]:
    xp, host = backend.xp, backend.to_host
    chosen = xp.asarray(list(ids), dtype=xp.int64, device=before.device)

    def at(x: Array) -> list[float]:
        listed: list[float] = host(xp.take(x, chosen, axis=0)).tolist()
        return listed

    columns = zip(
        ids,
        at(xp.exp(log_softmax(before, xp=xp))),
        at(xp.exp(log_softmax(after, xp=xp))),
        at(xp.astype(after, xp.float64) - xp.astype(before, xp.float64)),
        strict=True,
    )
    return [Change(origin.token_string(n), n, p, q, shift) for n, p, q, shift in columns]
