"""What each component wrote to the residual stream, and the stream after each.

The stream is a sum: embeddings, then what every attention and every MLP added. The parts sum to
the final stream to the last digits of the dtype, which is checked each time.

Source: Elhage et al., "A Mathematical Framework for Transformer Circuits" (2021).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.prompts import one_prompt, places
from mi_ref.analysis.lens.plot import shown
from mi_ref.analysis.residual.parts import (
    Component,
    check_sum,
    points_needed,
    stream_writes,
)
from mi_ref.backend import Backend
from mi_ref.edits.intervention import Places, indices, plain_places
from mi_ref.errors import ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output import plots
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True, repr=False)
class ResidualDecomposition(Result):
    """Contributions to the residual stream at some positions of one prompt.

    Attributes
    ----------
    components : tuple of Component
        In the order in which they write.
    values : Array
        What each writes, ``[component, pos, d_model]``; it sums over components to `final`.
    final : Array
        The stream that the final norm reads, ``[pos, d_model]``.
    norms : tuple of tuple of float
        Length of each contribution, by component, then position.
    shares : tuple of tuple of float
        Its part along the final stream, as a share of that stream's length: they sum to 1.
    stream_norms : tuple of tuple of float
        Length of the stream once the component has written.
    positions : tuple of int
        Counted from the front.
    tokens : tuple of int
        The prompt's.
    origin : Origin
        The model, without its weights.
    """

    components: tuple[Component, ...]
    values: Float[Array, "component pos d_model"] = field(compare=False)
    final: Float[Array, "pos d_model"] = field(compare=False)
    norms: tuple[tuple[float, ...], ...]
    shares: tuple[tuple[float, ...], ...]
    stream_norms: tuple[tuple[float, ...], ...]
    positions: tuple[int, ...]
    tokens: tuple[int, ...]
    backend: Backend = field(compare=False)
    origin: Origin = field(compare=False)

    def accumulated(self) -> Float[Array, "component pos d_model"]:
        """Return the stream after each component has written."""
        return _accumulated(self.values, self.backend)

    def table(self, top: int | None = None) -> Table:
        """Return one row per component, at the last of the positions: in order, or the `top`.

        Those are the largest shares of either sign, largest first.
        """
        place = self.positions[-1]
        token = self.origin.token_string(self.tokens[place])
        table = Table(
            ["component", ">norm", ">share of final", ">norm of stream"],
            f"residual stream at position {place}, {token!r}",
        )
        columns = zip(self.components, self.norms, self.shares, self.stream_norms, strict=True)
        rows = list(columns)
        if top is not None:
            rows = sorted(rows, key=lambda row: -abs(row[2][-1]))[:top]
        for name, norm, share, stream in rows:
            table.add(name, f"{norm[-1]:.3f}", f"{share[-1]:+.3f}", f"{stream[-1]:.3f}")
        return table

    def record(self) -> dict[str, Any]:
        """Return every number but the vectors themselves."""
        return record_of(
            self,
            "residual_decomposition",
            self.tokens,
            positions=list(self.positions),
            components=list(map(str, self.components)),
            norms=self.norms,
            shares=self.shares,
            stream_norms=self.stream_norms,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw each component's share of the final stream at each position."""
        plots.heat_map(
            path,
            self.shares,
            rows=list(map(str, self.components)),
            columns=[shown(self.origin.token_string(self.tokens[n])) for n in self.positions],
            title="What wrote the final residual stream",
            row_label="component",
            column_label="at token",
            unit="share along the final stream",
            centred=True,
        )


def residual_decomposition(
    model: Model,
    prompt: Prompt,
    *,
    positions: Places = -1,
    heads: bool = False,
    neurons: Sequence[int] = (),
    prepend_bos: bool | None = None,
) -> ResidualDecomposition:
    """Split the final residual stream into what wrote it.

    Parameters
    ----------
    model : Model
        What to look into.
    prompt : str, sequence of int, or Array
        One text, or its token ids.
    positions : Places
        Where to look; negative counts from the end, None is everywhere.
    heads : bool
        Split each attention into its heads. Norms after them are frozen.
    neurons : sequence of int
        Layers whose MLP to split into neurons; each takes ``d_mlp × d_model`` numbers a position.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    HookError
        If the model has no heads, or no neurons, of that kind.
    ShapeError
        If positions or layers lie outside, or there are several prompts.
    """
    ids = one_prompt(model, prompt, prepend_bos)
    chosen, n_layers = places(positions, len(ids), "positions"), model.cfg.n_layers
    split = range(n_layers) if heads else range(0)
    layers = _layers(neurons, n_layers)
    points = [*points_needed(model, split, layers), at.resid_post[-1]]
    run = model.run(ids, capture=[capture(p, pos=chosen) for p in points], logits="none")
    parts = list(stream_writes(model, run, split, layers))
    values = model.backend.xp.concat([value for _, value in parts], axis=0)
    final = run[at.resid_post[-1]][0, :, :]
    check_sum(values, final, "the final residual stream", model)
    return ResidualDecomposition(
        components=tuple(name for names, _ in parts for name in names),
        values=values,
        final=final,
        norms=_norms(values, model),
        shares=_shares(values, final, model),
        stream_norms=_norms(_accumulated(values, model.backend), model),
        positions=chosen,
        tokens=ids,
        backend=model.backend,
        origin=model.origin,
    )


def _layers(neurons: Sequence[int], n_layers: int) -> frozenset[int]:
    """Return the layers whose MLP is split, counted from the front; none is a choice too."""
    given = plain_places(neurons, "neurons")
    try:
        return frozenset(indices(() if given is None else given, n_layers))
    except IndexError:
        raise ShapeError(
            f"neurons={neurons!r}: this model's layers are 0 to {n_layers - 1}."
        ) from None


def _accumulated(values: Array, backend: Backend) -> Array:
    streams = accumulate(values[n, :, :] for n in range(values.shape[0]))
    return backend.xp.stack(list(streams))


def _norms(x: Float[Array, "component pos d_model"], model: Model) -> tuple[tuple[float, ...], ...]:
    return _plain(model.backend.xp.sqrt(model.backend.xp.sum(x * x, axis=-1)), model)


def _shares(values: Array, final: Array, model: Model) -> tuple[tuple[float, ...], ...]:
    xp = model.backend.xp
    along = xp.sum(values * final, axis=-1)
    return _plain(along / xp.sum(final * final, axis=-1), model)


def _plain(x: Array, model: Model) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, model.backend.to_host(x).tolist()))
