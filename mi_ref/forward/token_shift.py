"""Shift each row's stream by one token, with regard to its pads."""

from __future__ import annotations

from dataclasses import dataclass

from mi_ref._typing import Array, Bool, Float, Int, Residual
from mi_ref.backend import Backend
from mi_ref.text.padding import Padding


@dataclass(frozen=True, slots=True)
class Rows:
    """The rows of one pass; every field but the backend is None if nothing is padded."""

    backend: Backend
    mask: Bool[Array, "batch pos"] | None
    """Where there are tokens."""
    begins: Bool[Array, "batch pos"] | None
    """Columns up to and including each row's first token."""
    stops: Int[Array, " batch"] | None
    """The column of each row's last token."""

    def shifted(self, x: Residual, first: Float[Array, "batch d_model"]) -> Residual:
        """Return the stream of each token's predecessor; `first` for a row's first token."""
        xp = self.backend.xp
        before = xp.concat([first[:, None, :], x[:, : x.shape[1] - 1, :]], axis=1)
        if self.begins is not None:
            before = xp.where(self.begins[:, :, None], first[:, None, :], before)
        return self.backend.ops.lay_out(before, x)

    def last(self, x: Residual) -> Float[Array, "batch d_model"]:
        """Return the stream of each row's last token."""
        xp = self.backend.xp
        if self.stops is None:
            # A copy: a view would keep the whole stream in memory.
            return xp.asarray(x[:, -1, :], copy=True)
        return xp.take_along_axis(x, self.stops[:, None, None], axis=1)[:, 0, :]


def rows_of(padding: Padding | None, backend: Backend) -> Rows:
    """Return the rows of a pass with this padding, or without any."""
    if padding is None:
        return Rows(backend, None, None, None)
    xp, device = backend.xp, backend.device
    columns = xp.arange(padding.n_pos, dtype=xp.int64, device=device)[None, :]
    begins = columns <= padding.starts_array(backend)[:, None]
    stops = xp.asarray([stop - 1 for stop in padding.stops], dtype=xp.int64, device=device)
    return Rows(backend, padding.mask(backend), begins, stops)
