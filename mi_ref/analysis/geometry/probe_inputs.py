"""What linear probes are fitted to: prompts, labels and layers, checked, and the activations."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from mi_ref._typing import Array, Float
from mi_ref.analysis.arguments.numbers import layer_site, whole
from mi_ref.analysis.arguments.prompts import one_prompt
from mi_ref.errors import HookError, ShapeError
from mi_ref.hooks.capture import capture
from mi_ref.hooks.sites import LayerSite
from mi_ref.model import Model


def check_probes(
    prompts: Sequence[Any],
    labels: Sequence[Hashable],
    held_out: float,
    regularisation: float,
    seed: int,
) -> None:
    """Refuse what no probe can be fitted to, or judged on.

    Raises
    ------
    ShapeError
        If labels do not fit the prompts, or a number lies outside its range.
    """
    if len(prompts) != len(labels):
        raise ShapeError(f"{len(prompts)} prompts and {len(labels)} labels: one for each.")
    sizes = Counter(labels)
    if len(sizes) < 2 or min(sizes.values()) < 2:
        raise ShapeError(f"the labels occur {dict(sizes)}: a probe needs two, each twice or more.")
    if not 0 < held_out < 1:
        raise ShapeError(f"held_out={held_out}: it is a share of the prompts, above 0 and below 1.")
    if not 0 < regularisation < math.inf:
        raise ShapeError(f"regularisation={regularisation}: it has to be above 0, and finite.")
    if not 0 <= whole(seed, "seed") < 2**32:
        raise ShapeError(f"seed={seed}: scikit-learn takes 0 to 2**32 - 1.")


def check_split(labels: Sequence[Hashable], held_out: float) -> None:
    """Refuse a split with a side too small for all labels.

    Raises
    ------
    ShapeError
        With the sizes of both sides.
    """
    n_labels, unseen = len(set(labels)), math.ceil(held_out * len(labels))
    if min(unseen, len(labels) - unseen) < n_labels:
        raise ShapeError(
            f"held_out={held_out} of {len(labels)} prompts splits them into"
            f" {len(labels) - unseen} and {unseen}: each side needs all {n_labels} labels. Give"
            " more prompts, or choose a share nearer to one half."
        )


def probed(
    model: Model,
    prompts: Sequence[Any],
    site: LayerSite,
    layers: Sequence[int],
    position: int,
    prepend_bos: bool | None,
) -> tuple[tuple[tuple[int, ...], ...], list[Float[Array, "n width"]]]:
    """Return the prompts' ids, and on the host each layer's activations at one position.

    Raises
    ------
    HookError
        If the site is not one of layers and positions.
    """
    if layer_site(site).axes[1] != "pos":
        raise HookError(f"{site!r} has the axes {' '.join(site.axes)}: one with pos is needed.")
    xp, host = model.backend.xp, model.backend.to_host
    rows: list[list[Array]] = [[] for _ in layers]
    ids = []
    for prompt in prompts:
        ids.append(one_prompt(model, prompt, prepend_bos))
        wanted = [capture(site[layer], pos=position) for layer in layers]
        run = model.run(list(ids[-1]), capture=wanted, stop_at_layer=max(layers) + 1, logits="none")
        for kept, layer in zip(rows, layers, strict=True):
            kept.append(xp.reshape(run[site[layer]], (1, -1)))
    return tuple(ids), [host(xp.concat(kept, axis=0)).astype("float64") for kept in rows]
