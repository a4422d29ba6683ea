"""Causal tracing: where restoring clean activations brings back what noise on the subject took.

The embeddings of the subject's tokens get Gaussian noise; then the clean run's activations are put
back at one position, in a window of layers, and the answer's probability is measured. Averaged over
several draws of the noise.

Source: Meng et al., "Locating and Editing Factual Associations in GPT", arXiv:2202.05262.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from typing import Any, Unpack

from mi_ref import do
from mi_ref.analysis.arguments.numbers import finite, layer_site, whole
from mi_ref.analysis.arguments.prompts import one_prompt, places, position_names
from mi_ref.analysis.measure.metrics import Metric, Probability, token
from mi_ref.analysis.patching.noise import embedding_std, noise_draws
from mi_ref.analysis.sweeps.sweep import SweepCell, SweepOptions, sweep
from mi_ref.edits.intervention import Intervention, Places
from mi_ref.errors import HookError, ShapeError, TokenError
from mi_ref.hooks.capture import Edit, capture
from mi_ref.hooks.selectors import Selector
from mi_ref.hooks.sites import LayerSite, at
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table
from mi_ref.run import Run
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True, repr=False)
class CausalTrace(Result):
    """What restoring each place does to a corrupted prediction.

    Attributes
    ----------
    values : tuple of tuple of float
        The metric with the place restored, by layer, then position; the mean over draws.
    spread : tuple of tuple of float
        Standard deviation over draws of the same.
    clean : float
        The metric without noise.
    corrupted : tuple of float
        The metric with noise and nothing restored, by draw.
    metric : Metric
        What was measured.
    site : str
        What was restored, in `window` layers about each of `layers`.
    layers, positions, subject : tuple of int
        The grid's, and the positions with noise.
    noise_std : float
        Standard deviation of the noise.
    seed : int
        Seed of the noise.
    tokens : tuple of int
        The prompt's.
    """

    values: tuple[tuple[float, ...], ...]
    spread: tuple[tuple[float, ...], ...]
    clean: float
    corrupted: tuple[float, ...]
    metric: Metric
    site: str
    window: int
    layers: tuple[int, ...]
    positions: tuple[int, ...]
    subject: tuple[int, ...]
    noise_std: float
    seed: int
    tokens: tuple[int, ...]
    origin: Origin = field(compare=False)

    def effects(self) -> tuple[tuple[float, ...], ...]:
        """Return the indirect effects: `values` less the corrupted prediction's mean."""
        floor = fmean(self.corrupted)
        return tuple(tuple(value - floor for value in line) for line in self.values)

    def table(self) -> Table:
        """Return the metric for each layer and position; noised positions bear a star."""
        table = Table([">layer", *(f">{name}" for name in self._columns())], self._what())
        for layer, line in zip(self.layers, self.values, strict=True):
            table.add(layer, *(f"{value:.3f}" for value in line))
        return table

    def summary(self) -> str:
        """Return what the noise did as a sentence."""
        return (
            f"{self.metric.label} is {self.clean:.3f} without noise and {fmean(self.corrupted):.3f}"
            f" with it, the mean of {len(self.corrupted)} draws."
        )

    def record(self) -> dict[str, Any]:
        """Return everything."""
        return record_of(
            self,
            "causal_trace",
            self.tokens,
            seed=self.seed,
            metric=self.metric.record(),
            clean=self.clean,
            corrupted=list(self.corrupted),
            site=self.site,
            window=self.window,
            layers=list(self.layers),
            positions=list(self.positions),
            subject=list(self.subject),
            noise_std=self.noise_std,
            values=[list(line) for line in self.values],
            spread=[list(line) for line in self.spread],
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw a heat map of the metric."""
        from mi_ref.output.plots import heat_map

        heat_map(
            path,
            self.values,
            rows=[str(layer) for layer in self.layers],
            columns=self._columns(),
            title=f"{self.origin.name}: {self._what()}",
            row_label="layer",
            column_label="restored position (* noised)",
            unit=self.metric.label,
        )

    def _columns(self) -> list[str]:
        names = position_names(self.origin, self.tokens)
        return [names[pos] + "*" * (pos in self.subject) for pos in self.positions]

    def _what(self) -> str:
        about = "" if self.window == 1 else f" in {self.window} layers"
        return f"{self.metric.label}, {self.site} restored{about}"


def causal_tracing(
    model: Model,
    prompt: Prompt,
    *,
    subject: str | Places,
    target: str | int | None = None,
    metric: Metric | None = None,
    site: LayerSite = at.resid_post,
    window: int | None = None,
    noise: float = 3.0,
    draws: int = 10,
    seed: int = 0,
    layers: Places = None,
    positions: Places = None,
    prepend_bos: bool | None = None,
    **options: Unpack[SweepOptions],
) -> CausalTrace:
    """Restore one place at a time in a run whose subject is noise.

    Parameters
    ----------
    model : Model
        What to look into.
    prompt : str, sequence of int, or Array
        One prompt.
    subject : str or Places
        What gets the noise: a part of the prompt's text, or positions.
    target : str, int or None
        Whose probability is measured; None for the likeliest token.
    metric : Metric or None
        Something else to measure of the last position, in the place of a probability.
    site : LayerSite
        ``at.resid_post``, ``at.attn_out``, ``at.mlp_out``.
    window : int or None
        How many layers about each are restored together, less at both ends of the model; None for
        1 at residual streams and 10 elsewhere, as in the paper.
    noise : float
        Standard deviation, in those of all entries of the token embedding.
    draws : int
        How often noise is drawn; every draw is a grid of runs.
    seed : int
        Seed of the noise, which is the same on every backend.
    layers, positions : Places
        Where to restore; None for everywhere.
    prepend_bos : bool or None
        As for `Model.run`.
    **options
        As for `mi_ref.analysis.sweeps.sweep.sweep`: ``rows``, ``executor``, ``resume``.

    Returns
    -------
    CausalTrace
    """
    _check(draws, noise, window)
    if layer_site(site).axes != ("batch", "pos", "d_model"):
        raise HookError(f"{site!r} is {' '.join(site.axes)}: tracing restores batch pos d_model.")
    draws, seed = whole(draws, "draws"), whole(seed, "seed")
    if window is not None:
        window = whole(window, "window")
    else:
        window = 1 if site.name.startswith("resid") else 10
    ids = one_prompt(model, prompt, prepend_bos)
    noised = _subject(model, prompt, subject, len(ids), prepend_bos)
    depth = places(layers, model.cfg.n_layers, "layers")
    width = places(positions, len(ids), "positions")
    run = model.run(list(ids), capture=[capture(site[:], pos=width)], logits="last")
    if metric is None:
        answer = run.top(1)[0].id if target is None else target
        metric = Probability(token(model, answer))
    std = noise * embedding_std(model)
    added = [do.add(x, positions=noised) for x in noise_draws(model, std, len(noised), draws, seed)]
    cells = [SweepCell(((at.embed, each),), label="nothing restored") for each in added]
    cells += _restored(run, site, window, depth, width, added)
    found = sweep(model, list(ids), cells, metric, **options)
    numbers = [value for (value,) in found.values]
    groups = [numbers[start : start + draws] for start in range(draws, len(numbers), draws)]
    return CausalTrace(
        values=_folded([fmean(group) for group in groups], len(width)),
        spread=_folded([stdev(group) if draws > 1 else 0.0 for group in groups], len(width)),
        clean=float(metric(run.logits_at(-1), xp=model.backend.xp)),
        corrupted=tuple(numbers[:draws]),
        metric=metric,
        site=repr(site),
        window=window,
        layers=depth,
        positions=width,
        subject=noised,
        noise_std=std,
        seed=seed,
        tokens=ids,
        origin=model.origin,
    )


def _check(draws: int, noise: float, window: int | None) -> None:
    (std,) = finite([noise], "noise")
    least = min(whole(draws, "draws"), 1 if window is None else whole(window, "window"))
    if least < 1 or std <= 0:
        raise ShapeError(f"draws={draws}, noise={noise}, window={window}: each is above zero.")


def _restored(
    run: Run,
    site: LayerSite,
    window: int,
    layers: Sequence[int],
    positions: Sequence[int],
    noise: Sequence[Intervention],
) -> Iterator[SweepCell]:
    """Yield a cell for each layer, position and draw, the last one varying fastest."""
    for layer in layers:
        for column, pos in enumerate(positions):
            clean = [
                (
                    site[near],
                    do.replace(run[site[near]][:, column : column + 1, :], positions=pos),
                )
                for near in _window(layer, window, run.cfg.n_layers)
            ]
            for each in noise:
                edits: list[tuple[Selector, Edit]] = [(at.embed, each), *clean]
                yield SweepCell(tuple(edits), label=f"{site[layer]!r} position {pos}")


def _subject(
    model: Model, prompt: Prompt, subject: str | Places, n_pos: int, prepend_bos: bool | None
) -> tuple[int, ...]:
    """Return the subject's positions, in order."""
    if not isinstance(subject, str):
        return tuple(sorted(places(subject, n_pos, "subject")))
    if not isinstance(prompt, str) or not subject or subject not in prompt:
        raise TokenError(
            f"subject={subject!r} is not part of the prompt {prompt!r}: name positions."
        )
    start = prompt.index(subject)
    encoding = model.tokenizer.encode(prompt, prepend_bos=prepend_bos)
    return encoding.span_to_tokens(start, start + len(subject))


def _window(layer: int, width: int, n_layers: int) -> range:
    """Return the `width` layers about one, as many as there are."""
    return range(max(0, layer - width // 2), min(n_layers, layer + (width + 1) // 2))


def _folded(values: Sequence[float], width: int) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(values[n : n + width]) for n in range(0, len(values), width))
