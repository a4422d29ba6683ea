"""Prompts of different lengths in one batch: which columns of each row hold its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mi_ref._typing import Array, Bool, Int
from mi_ref.backend import Backend
from mi_ref.errors import ArgumentError, ShapeError, TokenError

PaddingSide: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Padding:
    """Which columns of each row hold its tokens; those before and after are pads.

    Positions count from a row's first token, and no token sees a pad. A pad sees itself and the
    tokens before it, so activations at pads are finite, and meaningless.
    """

    starts: tuple[int, ...]
    """Column of each row's first token."""
    stops: tuple[int, ...]
    """Column after each row's last token."""
    n_pos: int
    """Number of columns."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Number of tokens in each row."""
        return tuple(stop - start for start, stop in zip(self.starts, self.stops, strict=True))

    def positions(self, backend: Backend) -> Int[Array, "batch pos"]:
        """Return each token's position in its row; 0 for pads before it."""
        xp, device = backend.xp, backend.device
        columns = xp.arange(self.n_pos, dtype=xp.int64, device=device)[None, :]
        return xp.clip(columns - self.starts_array(backend)[:, None], 0, None)

    def starts_array(self, backend: Backend) -> Int[Array, " batch"]:
        """Return `starts` on the device."""
        return backend.xp.asarray(self.starts, dtype=backend.xp.int64, device=backend.device)

    def mask(self, backend: Backend) -> Bool[Array, "batch pos"]:
        """Return where there are tokens: the attention mask."""
        xp, device = backend.xp, backend.device
        columns = xp.arange(self.n_pos, dtype=xp.int64, device=device)[None, :]
        stops = xp.asarray(self.stops, dtype=xp.int64, device=device)[:, None]
        return xp.logical_and(columns >= self.starts_array(backend)[:, None], columns < stops)

    def column(self, row: int, pos: int) -> int:
        """Return the column of a row's token number `pos`, counted from the end if negative.

        Raises
        ------
        ShapeError
            If the row has no such token.
        """
        start, stop = self.starts[row], self.stops[row]
        column = (start if pos >= 0 else stop) + pos
        if not start <= column < stop:
            raise ShapeError(f"row {row} has {stop - start} tokens, none of them at {pos}.")
        return column


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts padded to one length; ``model.run`` accepts it as it is."""

    tokens: Int[Array, "batch pos"]
    padding: Padding | None
    """None if nothing had to be padded."""

    def __post_init__(self) -> None:
        padding = self.padding
        if padding and (len(padding.starts), padding.n_pos) != tuple(self.tokens.shape):
            raise TokenError(
                f"the padding is for (batch {len(padding.starts)}, pos {padding.n_pos}); the"
                f" tokens are {tuple(self.tokens.shape)}. Pass both from one model.to_batch."
            )


def pad(
    rows: Sequence[Sequence[int]], side: PaddingSide, pad_id: int
) -> tuple[list[list[int]], Padding | None]:
    """Pad rows to the length of the longest.

    Parameters
    ----------
    rows : sequence of sequence of int
        Token ids.
    side : {"left", "right"}
        Where the pads go.
    pad_id : int
        The id at pads; no token ever sees it.

    Returns
    -------
    tuple
        The rows, and where their tokens are; None if nothing had to be padded.

    Raises
    ------
    ArgumentError
        If `side` is neither ``"left"`` nor ``"right"``.
    """
    if side not in ("left", "right"):
        raise ArgumentError(f"padding_side={side!r}: expected 'left' or 'right'.")
    longest = max(map(len, rows))
    gaps = [longest - len(row) for row in rows]
    if not any(gaps):
        return [list(row) for row in rows], None
    pads = [[pad_id] * gap for gap in gaps]
    if side == "left":
        filled = [[*gap, *row] for gap, row in zip(pads, rows, strict=True)]
        return filled, Padding(tuple(gaps), (longest,) * len(rows), longest)
    filled = [[*row, *gap] for gap, row in zip(pads, rows, strict=True)]
    return filled, Padding((0,) * len(rows), tuple(map(len, rows)), longest)


def read_mask(
    mask: Any, shape: tuple[int, int], known: Padding | None, backend: Backend
) -> Padding | None:
    """Return the padding that an attention mask describes; None if it has no pads.

    Parameters
    ----------
    mask : Array or nested sequence
        ``[batch, pos]`` of true and false, or 1 and 0.
    shape : tuple of int
        Batch and positions of the prompt.
    known : Padding or None
        The padding that the prompts' own lengths already require.
    backend : Backend
        The backend of the mask, if that is an array.

    Raises
    ------
    TokenError
        If it has another shape or other values, or a row without tokens or with pads between
        them, or if it contradicts `known`.
    """
    listed = backend.to_host(mask).tolist() if hasattr(mask, "dtype") else mask
    if not isinstance(listed, Sequence) or not all(isinstance(row, Sequence) for row in listed):
        raise TokenError(f"attention_mask={mask!r}: expected rows of 1 and 0, [batch, pos].")
    rows = [list(row) for row in listed]
    if (len(rows), *{len(row) for row in rows}) != shape:
        raise TokenError(
            f"attention_mask: expected (batch {shape[0]}, pos {shape[1]}) like the prompt, got"
            f" {len(rows)} rows of {sorted({len(row) for row in rows})} entries."
        )
    if wrong := [value for row in rows for value in row if value not in (0, 1)]:
        raise TokenError(
            f"attention_mask: expected 1 for a token and 0 for a pad, got {wrong[0]!r}."
        )
    starts, stops = [], []
    for number, row in enumerate(rows):
        tokens = [place for place, value in enumerate(row) if value]
        if not tokens:
            raise TokenError(f"row {number} of attention_mask has no token: leave that row out.")
        start, stop = tokens[0], tokens[-1] + 1
        if stop - start != len(tokens):
            raise TokenError(
                f"row {number} of attention_mask has a pad between tokens; expected pads only"
                " before or after them. To hide a token from others, edit at.attn_scores."
            )
        starts.append(start)
        stops.append(stop)
    full = not any(starts) and all(stop == shape[1] for stop in stops)
    found = None if full else Padding(tuple(starts), tuple(stops), shape[1])
    if known is not None and found != known:
        raise TokenError(
            "attention_mask contradicts the pads that the prompts' own lengths require: leave it"
            " out, or pass token ids of equal length."
        )
    return found
