"""Ablate heads in three ways on twelve prompts: the three disagree on which heads matter.

Zero ablation, and the mean over the other prompts, show which heads later layers need at all.
Resampling replaces a head by its value on another prompt, so that only differences between prompts
count. Head 0.4 of the bundled model ranks first by the mean and hardly matters by resampling: it is
needed, but does much the same for every country. Heads 3.6 and 3.7 are the reverse: others make up
for their absence, but they carry the capital's identity. Ignore differences within the standard
errors. Runs offline, or on any checkpoint; the heat map of resampling goes to a file::

    python examples/ablation.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis.ablation.dataset import dataset_ablation
from mi_ref.analysis.ablation.dataset_effects import DatasetAblation
from mi_ref.analysis.ablation.parts import Method, What
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

COUNTRIES = ["France", "Italy", "Spain", "Peru", "Kenya", "Cuba", "Egypt", "Poland", "Norway",
             "Sweden", "Ireland", "Angola"]  # fmt: skip
METHODS: tuple[Method, ...] = ("zero", "mean", "resample")
MOST, DRAWS = 6, 2


def main(name: str = "atlas", picture: str | None = None) -> dict[Method, DatasetAblation]:
    """Print and return the result of each method."""
    model: Model = mi_ref.from_pretrained(name)
    what: What = "attn" if model.cfg.recurrent else "head"
    prompts = [f"The capital of {country} is" for country in COUNTRIES]
    found = {
        method: dataset_ablation(model, prompts, what=what, method=method, draws=DRAWS)
        for method in METHODS
    }
    table = Table([what, *(f">{m} {h}" for m in METHODS for h in ("KL", "± s.e."))],
                  f"mean over {len(prompts)} prompts, nats")  # fmt: skip
    places = [(e.layer, e.index) for e in found["zero"].effects]
    chosen = {(e.layer, e.index) for each in found.values() for e in each.top(MOST)}
    for n, (layer, index) in enumerate(places):
        if (layer, index) in chosen:
            kls = [found[method].effects[n].kl for method in METHODS]
            numbers = [f"{x:.4f}" for kl in kls for x in (kl.mean, kl.error)]
            table.add(f"{layer}" if index is None else f"{layer}.{index}", *numbers)
    table.print()
    if picture:
        found["resample"].plot(picture)
    return found


if __name__ == "__main__":
    run(main)
