"""How a model counts the characters of a line: the mean stream at each count, and its shape.

A text is wrapped at many widths, so that the same words stand at all places of a line. The residual
stream is averaged over all tokens that start so many characters after the newline; the principal
components of these means, and their cosines, show the curve along which the count lies.

candle-mi projects means that are not centred on components of centred ones, and takes cosines of
means that are not centred, which the mean of all dominates; here both are centred.

Source: Gurnee et al., "When Models Manipulate Manifolds" (2025); candle-mi's
``character_count_helix``.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.geometry.line_wrap import Unit, counts_in_line, rewrap
from mi_ref.analysis.geometry.pca import Axes, principal_axes
from mi_ref.errors import HookError, ShapeError
from mi_ref.hooks.sites import at
from mi_ref.model import Model
from mi_ref.output import plots
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table

WIDTHS = tuple(range(20, 160, 10))
"""At which candle-mi wraps."""


@dataclass(frozen=True, slots=True, repr=False)
class CharacterHelix(Result):
    """Mean residual streams by place in the line.

    Attributes
    ----------
    counts : tuple of int
        How much of the line stands before a token, in `unit`; those that occur.
    samples : tuple of int
        Tokens averaged at each.
    means : Array
        ``[count, d_model]``, float64, not centred.
    axes : Axes
        Principal components of the means, each count weighing the same.
    shares : tuple of float
        Shares of the means' variance, by component.
    projections : tuple of tuple of float
        The centred means projected, by count, then component.
    cosines : tuple of tuple of float
        Between centred means, by count and count.
    layer, widths, unit, max_tokens
        As they were asked for, the layer counted from the front.
    texts : tuple of str
        What was wrapped.
    origin : Origin
        The model, without its weights.
    """

    counts: tuple[int, ...]
    samples: tuple[int, ...]
    means: Float[Array, "count d_model"] = field(compare=False)
    axes: Axes = field(compare=False)
    shares: tuple[float, ...]
    projections: tuple[tuple[float, ...], ...]
    cosines: tuple[tuple[float, ...], ...]
    layer: int
    widths: tuple[int, ...]
    unit: Unit
    max_tokens: int | None
    texts: tuple[str, ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per component."""
        table = Table(
            [">component", ">share of variance", ">in all"],
            f"layer {self.layer}, {len(self.counts)} counts, {sum(self.samples)} tokens",
        )
        for n, share in enumerate(self.shares):
            table.add(n + 1, f"{share:.4f}", f"{sum(self.shares[: n + 1]):.4f}")
        return table

    def record(self) -> dict[str, Any]:
        """Return every number but the vectors, and the texts."""
        return record_of(
            self,
            "character_helix",
            layer=self.layer,
            widths=list(self.widths),
            unit=self.unit,
            max_tokens=self.max_tokens,
            texts=list(self.texts),
            counts=list(self.counts),
            samples=list(self.samples),
            shares=self.shares,
            projections=self.projections,
            cosines=self.cosines,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the projections on each component over the counts."""
        plots.curves(
            path,
            [float(n) for n in self.counts],
            {f"PC {n + 1} ({share:.0%})": [row[n] for row in self.projections]
             for n, share in enumerate(self.shares)},
            title=f"Where in the line, layer {self.layer}",
            x_label=f"{self.unit} since the newline",
            y_label="projection",
        )  # fmt: skip

    def plot_cosines(self, path: str | os.PathLike[str]) -> None:
        """Draw the cosines between counts: bands beside the diagonal are a curve that winds."""
        names = list(map(str, self.counts))
        plots.heat_map(
            path, self.cosines, rows=names, columns=names, unit="cosine of centred means",
            title=f"Where in the line, layer {self.layer}", row_label=self.unit,
            column_label=f"{self.unit} since the newline", centred=True,
        )  # fmt: skip


def character_helix(
    model: Model,
    texts: str | Sequence[str],
    *,
    layer: int,
    widths: Sequence[int] = WIDTHS,
    max_count: int = 150,
    n_components: int = 6,
    unit: Unit = "characters",
    max_tokens: int | None = None,
    prepend_bos: bool | None = None,
) -> CharacterHelix:
    """Average the residual stream by place in the line, and find the curve of these means.

    Parameters
    ----------
    model : Model
        What to look into.
    texts : str or sequence of str
        Prose; each is wrapped at every width and run by itself.
    layer : int
        Whose ``at.resid_post`` to average; negative counts from the last.
    widths : sequence of int
        Widths of lines.
    max_count : int
        Counts from 1 to this one are looked at. What starts a line, after 0, is left out: it has
        just read the newline.
    n_components : int
        How many to keep; fewer where there are fewer counts.
    unit : {"characters", "bytes"}
        What widths and counts are in; candle-mi's are bytes.
    max_tokens : int or None
        How many first tokens of each wrapped text to run; None for all.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    BackendError
        If the array library has no singular value decomposition.
    ShapeError
        If fewer than two counts occur.
    """
    n_layers = model.cfg.n_layers
    if not -n_layers <= whole(layer, "layer") < n_layers:
        raise HookError(f"layer={layer}: this model's layers are 0 to {n_layers - 1}.")
    given = (texts,) if isinstance(texts, str) else tuple(texts)
    sums, sizes = _sums(
        model, [rewrap(text, width, unit=unit) for text in given for width in widths],
        layer % n_layers, max_count, unit, max_tokens, prepend_bos,
    )  # fmt: skip
    found = [n for n, size in enumerate(sizes) if size]
    if len(found) < 2:
        raise ShapeError(
            f"the texts have tokens at {len(found)} places of a line from 1 to {max_count}; two"
            " are needed: give longer texts, or wider lines."
        )
    xp, host = model.backend.xp, model.backend.to_host
    taken = [sums[n, :] / sizes[n] for n in found]
    means = xp.stack(taken)
    k = min(n_components, *means.shape)
    axes = principal_axes(means, k, backend=model.backend)
    return CharacterHelix(
        counts=tuple(n + 1 for n in found),
        samples=tuple(sizes[n] for n in found),
        means=means,
        axes=axes,
        shares=tuple(host(axes.shares).tolist()),
        projections=tuple(map(tuple, host(axes.projections).tolist())),
        cosines=tuple(map(tuple, host(_cosines(means - axes.mean, model)).tolist())),
        layer=layer % n_layers,
        widths=tuple(widths),
        unit=unit,
        max_tokens=max_tokens,
        texts=given,
        origin=model.origin,
    )


def _sums(
    model: Model,
    wrapped: Sequence[str],
    layer: int,
    max_count: int,
    unit: Unit,
    max_tokens: int | None,
    prepend_bos: bool | None,
) -> tuple[Float[Array, "count d_model"], list[int]]:
    """Return the sum of the streams at each count from 1 on, in float64, and how many there are."""
    xp, device = model.backend.xp, model.backend.device
    shape = (max_count, model.cfg.d_model)
    total = xp.zeros(shape, dtype=xp.float64, device=device)
    sizes = [0] * max_count
    places = xp.arange(1, max_count + 1, dtype=xp.int64, device=device)
    for text in wrapped:
        encoding = model.tokenizer.encode(text, prepend_bos=prepend_bos)
        counts = [n or 0 for n in counts_in_line(encoding, unit=unit)][:max_tokens]
        run = model.run(
            list(encoding.ids)[:max_tokens], capture=[at.resid_post[layer]],
            stop_at_layer=layer + 1, logits="none",
        )  # fmt: skip
        own = xp.asarray(counts, dtype=xp.int64, device=device)
        chosen = xp.astype(places[:, None] == own[None, :], xp.float64)  # [count, pos]
        total = total + chosen @ xp.astype(run[at.resid_post[layer]][0, :, :], xp.float64)
        for count in counts:
            if 1 <= count <= max_count:
                sizes[count - 1] += 1
    return total, sizes


def _cosines(x: Float[Array, "count d_model"], model: Model) -> Float[Array, "count count"]:
    xp = model.backend.xp
    unit = x / xp.sqrt(xp.sum(x * x, axis=-1, keepdims=True))
    return unit @ unit.mT
