"""Prompts of different lengths in one batch: where each row's tokens stand among its pads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from mi_ref._typing import Array, Bool, Int
from mi_ref.backend import Backend
from mi_ref.errors import TokenError

PaddingSide: TypeAlias = Literal["left", "right"]


@dataclass(frozen=True, slots=True)
class Padding:
    """Which columns of each row hold its tokens; those before and after are pads.

    Positions count from a row's first token, and no token sees a pad. A pad sees itself and,
    after the tokens, them: what flows at pads is finite and means nothing.
    """

    starts: tuple[int, ...]
    """Column of each row's first token."""
    stops: tuple[int, ...]
    """Column after each row's last token."""
    n_pos: int
    """Columns."""

    @property
    def lengths(self) -> tuple[int, ...]:
        """Tokens of each row."""
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
        """Return the column of a row's token number `pos`, counted from its end if negative.

        Raises
        ------
        IndexError
            If the row is shorter.
        """
        start, stop = self.starts[row], self.stops[row]
        column = (start if pos >= 0 else stop) + pos
        if not start <= column < stop:
            raise IndexError(f"row {row} has {stop - start} tokens; there is no {pos} among them.")
        return column


@dataclass(frozen=True, slots=True)
class Batch:
    """Prompts padded to one length; ``model.run`` takes it as it is."""

    tokens: Int[Array, "batch pos"]
    padding: Padding | None
    """None where nothing had to be padded."""

    def __post_init__(self) -> None:
        padding = self.padding
        if padding and (len(padding.starts), padding.n_pos) != tuple(self.tokens.shape):
            raise TokenError(
                f"the tokens are {tuple(self.tokens.shape)}; their padding is for (batch"
                f" {len(padding.starts)}, pos {padding.n_pos})."
            )


def pad(
    rows: Sequence[Sequence[int]], side: PaddingSide, pad_id: int
) -> tuple[list[list[int]], Padding | None]:
    """Fill rows up to the length of the longest.

    Parameters
    ----------
    rows : sequence of sequence of int
        Token ids.
    side : {"left", "right"}
        Where the pads go.
    pad_id : int
        What stands there; no token ever sees it.

    Returns
    -------
    tuple
        The rows, and where their tokens stand; None if nothing had to be filled.
    """
    if side not in ("left", "right"):
        raise TokenError(f"padding_side={side!r}: it is 'left' or 'right'.")
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
    """Return what an attention mask says; None if it says that there are no pads.

    Parameters
    ----------
    mask : Array or nested sequence
        ``[batch, pos]`` of true and false, or 1 and 0.
    shape : tuple of int
        Batch and positions of the prompt.
    known : Padding or None
        What the prompts' own lengths already say.
    backend : Backend
        Of the mask, if it is an array.

    Raises
    ------
    TokenError
        If it has another shape or other values, or a row without tokens or with pads among them,
        or says otherwise than `known`.
    """
    listed = backend.to_host(mask).tolist() if hasattr(mask, "dtype") else mask
    if not isinstance(listed, Sequence) or not all(isinstance(row, Sequence) for row in listed):
        raise TokenError(f"attention_mask={mask!r}: it is rows of 1 and 0, [batch, pos].")
    rows = [list(row) for row in listed]
    if (len(rows), *{len(row) for row in rows}) != shape:
        raise TokenError(
            f"attention_mask has {len(rows)} rows of {sorted({len(row) for row in rows})} entries;"
            f" the prompt is (batch {shape[0]}, pos {shape[1]})."
        )
    if wrong := [value for row in rows for value in row if value not in (0, 1)]:
        raise TokenError(f"attention_mask holds {wrong[0]!r}; 1 is a token, 0 a pad.")
    starts, stops = [], []
    for number, row in enumerate(rows):
        tokens = [place for place, value in enumerate(row) if value]
        if not tokens:
            raise TokenError(f"row {number} of attention_mask has no token: leave the row out.")
        start, stop = tokens[0], tokens[-1] + 1
        if stop - start != len(tokens):
            raise TokenError(
                f"row {number} of attention_mask has a pad between tokens. Pads stand before or"
                " after them; to hide a token from others, edit at.attn_scores."
            )
        starts.append(start)
        stops.append(stop)
    full = not any(starts) and all(stop == shape[1] for stop in stops)
    found = None if full else Padding(tuple(starts), tuple(stops), shape[1])
    if known is not None and found != known:
        raise TokenError(
            "attention_mask differs from the pads that the prompts' own lengths ask for: leave it"
            " out, or pass token ids of one length."
        )
    return found
