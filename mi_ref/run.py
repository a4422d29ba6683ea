"""What a forward pass returns: logits, tokens, captured activations."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mi_ref._typing import Array, Bool, Float, Int
from mi_ref.backend import Backend
from mi_ref.config.decoder import DecoderConfig
from mi_ref.errors import ShapeError
from mi_ref.hooks.cache import Cache
from mi_ref.hooks.selectors import Selector
from mi_ref.output.origin import Origin
from mi_ref.output.tables import Table
from mi_ref.state.state import State
from mi_ref.text.padding import Padding


@dataclass(frozen=True, slots=True)
class Prediction:
    """One candidate for the next token."""

    rank: int
    """From 1, the likeliest."""
    token: str
    id: int
    logit: float
    probability: float


@dataclass(frozen=True, slots=True)
class Predictions:
    """The likeliest next tokens; prints as a table."""

    items: tuple[Prediction, ...]

    def __getitem__(self, index: int) -> Prediction:
        return self.items[index]

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def table(self) -> Table:
        """Return one row per candidate."""
        table = Table([">rank", "token", ">id", ">logit", ">probability"])
        for p in self.items:
            table.add(p.rank, repr(p.token), p.id, f"{p.logit:.3f}", f"{p.probability:.4f}")
        return table

    def __str__(self) -> str:
        return str(self.table())

    def _repr_html_(self) -> str:
        return self.table().html()


@dataclass(frozen=True, slots=True, repr=False)
class Run:
    """One forward pass. ``run[at.pattern[3]]`` is a captured activation.

    Attributes
    ----------
    tokens : Array or None
        Token ids ``[batch, pos]``; None if the run started from a residual stream.
    padding : Padding or None
        Which columns of each row are tokens; None if all are.
    logits : Array or None
        ``[batch, pos, d_vocab]``; one position for ``logits="last"``; None for ``"none"`` and for
        a run that stopped at a layer.
    resid : Array
        Residual stream ``[batch, pos, d_model]`` leaving the last layer that ran: what
        ``start_at_layer`` continues from.
    state : State or None
        The state that a recurrent model's last tokens leave; ``model.run(more, state=run.state)``.
    first_values : Array or None
        Of RWKV-7: layer 0's values ``[batch, pos, head, d_head]``, which later layers read.
    bonuses : tuple of Array, or None
        Of RWKV-6: each layer's weights ``[head, d_head]`` of what a position reads of itself.
    cache : Cache
        Captured activations.
    cfg : DecoderConfig
        Sizes and structure of the model.
    backend : Backend
        The library that holds its arrays.
    origin : Origin
        The model that ran, without its weights.
    """

    tokens: Int[Array, "batch pos"] | None
    padding: Padding | None
    logits: Float[Array, "batch out_pos d_vocab"] | None
    resid: Float[Array, "batch pos d_model"]
    state: State | None
    first_values: Float[Array, "batch pos head d_head"] | None
    bonuses: tuple[Float[Array, "head d_head"], ...] | None
    cache: Cache
    cfg: DecoderConfig
    backend: Backend
    origin: Origin

    def __getitem__(self, key: Selector) -> Array:
        return self.cache[key]

    def top(self, k: int = 5, *, pos: int = -1, batch: int = 0) -> Predictions:
        """Return the `k` likeliest tokens to follow position `pos` of row `batch`.

        In a padded batch `pos` counts the row's own tokens, so that -1 is its last.

        Raises
        ------
        ShapeError
            If this run has no logits there.
        """
        row, backend = self.logits_at(pos, batch), self.backend
        weights = backend.ops.softmax(row)
        values, ids = backend.ops.top_k(row, min(k, row.shape[0]))
        chosen = backend.to_host(backend.xp.take(weights, ids, axis=0)).tolist()
        best = zip(
            backend.to_host(ids).tolist(), backend.to_host(values).tolist(), chosen, strict=True
        )
        return Predictions(
            tuple(
                Prediction(rank, self.origin.token_string(token), token, logit, probability)
                for rank, (token, logit, probability) in enumerate(best, start=1)
            )
        )

    def logits_at(self, pos: int = -1, batch: int = 0) -> Float[Array, " d_vocab"]:
        """Return the logits at position `pos` of row `batch`, counted as in `top`.

        Raises
        ------
        ShapeError
            If this run has no logits there.
        """
        if self.logits is None:
            raise ShapeError("this run has no logits: it was called with logits='none' or stopped.")
        n_rows, n_out = self.logits.shape[:2]
        if not (-n_out <= pos < n_out and -n_rows <= batch < n_rows):
            raise ShapeError(
                f"pos={pos}, batch={batch} lies outside the logits (batch {n_rows}, pos {n_out})."
            )
        column = pos % n_out
        if self.padding is not None and n_out == self.padding.n_pos:
            column = self._column(batch, pos)
        return self.logits[batch % n_rows, column, :]

    def _column(self, row: int, pos: int) -> int:
        assert self.padding is not None
        try:
            return self.padding.column(row, pos)
        except ShapeError as error:
            raise ShapeError(f"pos={pos}, batch={row}: {error}") from None

    @property
    def attention_mask(self) -> Bool[Array, "batch pos"]:
        """Where there are tokens: false at pads."""
        backend, shape = self.backend, self.resid.shape[:2]
        if self.padding is not None:
            return self.padding.mask(backend)
        return backend.xp.ones(shape, dtype=backend.xp.bool, device=backend.device)

    def __repr__(self) -> str:
        size = "×".join(map(str, self.resid.shape[:2]))
        shape = None if self.logits is None else tuple(self.logits.shape)
        return f"<Run of {size} tokens: logits {shape}, {len(self.cache)} captured>"
