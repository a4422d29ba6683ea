"""Linear probes: can a label be read off an activation by one linear map? Needs scikit-learn.

At each layer a logistic regression is fitted to standardised activations of some prompts and judged
on prompts that it has not seen. Beside it stands what it should be compared with: the same on
shuffled labels, which it can only learn by heart, and always saying the commonest label.

Source: Alain and Bengio, arXiv:1610.01644; selectivity by Hewitt and Liang, arXiv:1909.03368, with
labels shuffled over prompts in place of their labels by word type.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from mi_ref._typing import Array
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.analysis.arguments.prompts import places
from mi_ref.analysis.geometry.probe_inputs import check_probes, check_split, probed
from mi_ref.edits.intervention import Places
from mi_ref.hooks.sites import LayerSite, at
from mi_ref.model import Model
from mi_ref.output import plots
from mi_ref.output.origin import Origin
from mi_ref.output.result import Result, record_of
from mi_ref.output.tables import Table


@dataclass(frozen=True, slots=True)
class Probe:
    """How well one layer's probe does, as shares of prompts that it gets right."""

    layer: int
    train: float
    """On the prompts that it was fitted to."""
    test: float
    """On the others."""
    control: float
    """On the others, fitted and judged with shuffled labels."""

    @property
    def selectivity(self) -> float:
        """How much better it does than with shuffled labels."""
        return self.test - self.control


@dataclass(frozen=True, slots=True, repr=False)
class Probes(Result):
    """One probe per layer.

    Attributes
    ----------
    probes : tuple of Probe
        By layer.
    directions : tuple of Array
        Directions of each probe in the activation's units: ``[class, width]``, or ``[1, width]``
        towards the second of two classes.
    classes : tuple
        The labels that occur, in the probe's order.
    majority : float
        Share of the held-out prompts that the commonest label of the others gets right.
    held_out : tuple of int
        Which prompts were held out.
    labels : tuple
        As given.
    site : LayerSite
        The site of the activations.
    position, seed, regularisation
        As given.
    tokens : tuple of tuple of int
        The prompts'.
    origin : Origin
        The model, without its weights.
    """

    probes: tuple[Probe, ...]
    directions: tuple[Array, ...] = field(compare=False)
    classes: tuple[Hashable, ...]
    majority: float
    held_out: tuple[int, ...]
    labels: tuple[Hashable, ...]
    site: LayerSite
    position: int
    seed: int
    regularisation: float
    tokens: tuple[tuple[int, ...], ...]
    origin: Origin = field(compare=False)

    def table(self) -> Table:
        """Return one row per layer."""
        table = Table(
            [">layer", ">train", ">test", ">shuffled", ">selectivity"],
            f"{self.site!r}, {len(self.held_out)} held out, commonest {self.majority:.3f}",
        )
        for p in self.probes:
            table.add(p.layer, f"{p.train:.3f}", f"{p.test:.3f}", f"{p.control:.3f}",
                      f"{p.selectivity:+.3f}")  # fmt: skip
        return table

    def record(self) -> dict[str, Any]:
        """Return every number, the prompts, their labels and the split."""
        return record_of(
            self,
            "probes",
            self.tokens,
            seed=self.seed,
            site=self.site.name,
            position=self.position,
            regularisation=self.regularisation,
            labels=list(self.labels),
            classes=list(self.classes),
            held_out=list(self.held_out),
            majority=self.majority,
            probes=[asdict(p) for p in self.probes],
            scikit_learn=import_module("sklearn").__version__,
        )

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw the shares over the layers."""
        plots.curves(
            path,
            [float(p.layer) for p in self.probes],
            {
                "held out": [p.test for p in self.probes],
                "shuffled labels": [p.control for p in self.probes],
                "commonest label": [self.majority] * len(self.probes),
            },
            title=f"Linear probes at {self.site!r}",
            x_label="layer",
            y_label="share right",
        )


def linear_probes(
    model: Model,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    labels: Sequence[Hashable],
    *,
    site: LayerSite = at.resid_post,
    layers: Places = None,
    position: int = -1,
    held_out: float = 0.25,
    regularisation: float = 1.0,
    seed: int = 0,
    prepend_bos: bool | None = None,
) -> Probes:
    """Fit a linear probe to each layer's activations and judge it on held-out prompts.

    Parameters
    ----------
    model : Model
        What to look into.
    prompts : sequence of str, or of sequence of int
        Texts or token ids, of any lengths.
    labels : sequence of hashable
        One per prompt; texts or whole numbers.
    site : LayerSite
        Whose activations; what follows position, such as heads, becomes one row.
    layers : Places
        Which; None for all.
    position : int
        A position among each prompt's own tokens.
    held_out : float
        Share of the prompts, of each label alike, that probes are judged on.
    regularisation : float
        Weight of the squared length of the probe against the loss summed over prompts; scikit-learn
        calls its inverse ``C``.
    seed : int
        Seed of the split and of the shuffled labels.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    ModuleNotFoundError
        If scikit-learn is missing.
    ShapeError
        If labels do not fit the prompts, or there are fewer than two.
    """
    if find_spec("sklearn") is None:
        raise ModuleNotFoundError(
            "probes need scikit-learn, which is not installed: pip install 'mi_ref[probes]'."
        )
    labels = labels.tolist() if hasattr(labels, "tolist") else labels
    check_probes(prompts, labels, held_out, regularisation, seed)
    position, seed = whole(position, "position"), whole(seed, "seed")
    chosen = places(layers, model.cfg.n_layers, "layers")
    check_split(labels, held_out)
    tokens, points = probed(model, prompts, site, chosen, position, prepend_bos)
    split = import_module("sklearn.model_selection").train_test_split
    seen, unseen = split(
        list(range(len(labels))), test_size=held_out, random_state=seed, stratify=list(labels)
    )
    shuffled = _shuffled(labels, (seen, unseen), seed)
    commonest = Counter(labels[n] for n in seen).most_common(1)[0][0]
    fitted = [_fit(x, labels, seen, regularisation) for x in points]
    controls = [_fit(x, shuffled, seen, regularisation) for x in points]
    probes = tuple(
        Probe(layer, _right(own, x, labels, seen), _right(own, x, labels, unseen),
              _right(control, x, shuffled, unseen))
        for layer, x, own, control in zip(chosen, points, fitted, controls, strict=True)
    )  # fmt: skip
    return Probes(
        probes=probes,
        directions=tuple(model.backend.from_host(_direction(own)) for own in fitted),
        classes=tuple(fitted[0][-1].classes_.tolist()),
        majority=sum(labels[n] == commonest for n in unseen) / len(unseen),
        held_out=tuple(sorted(unseen)),
        labels=tuple(labels),
        site=site,
        position=position,
        seed=seed,
        regularisation=regularisation,
        tokens=tokens,
        origin=model.origin,
    )


def _shuffled(
    labels: Sequence[Hashable], parts: tuple[Sequence[int], ...], seed: int
) -> list[Hashable]:
    """Return labels shuffled within each part of the split, whose shares so stay what they are."""
    mixed, draw = list(labels), random.Random(seed)
    for part in parts:
        for place, label in zip(part, draw.sample([labels[n] for n in part], len(part)),
                                strict=True):  # fmt: skip
            mixed[place] = label
    return mixed


def _fit(x: Array, labels: Sequence[Hashable], seen: Sequence[int], regularisation: float) -> Any:
    """Return a standardisation and a probe, fitted as one."""
    probe = import_module("sklearn.linear_model").LogisticRegression(
        C=1 / regularisation, max_iter=10_000
    )
    scaled = import_module("sklearn.preprocessing").StandardScaler()
    pipeline = import_module("sklearn.pipeline").make_pipeline(scaled, probe)
    return pipeline.fit(x[list(seen), :], [labels[n] for n in seen])


def _right(pipeline: Any, x: Array, labels: Sequence[Hashable], which: Sequence[int]) -> float:
    """Return the share of some prompts that a probe gets right."""
    found = pipeline.predict(x[list(which), :]).tolist()
    right = [bool(label == labels[n]) for label, n in zip(found, which, strict=True)]
    return sum(right) / len(right)


def _direction(pipeline: Any) -> Array:
    """Return the probe's weights on the activations themselves, before their standardisation."""
    scaled, probe = pipeline[0], pipeline[-1]
    return probe.coef_ / scaled.scale_
