"""Compare random models with transformers: ``python -m golden.fuzz [--family NAME] [--seed 0]``.

Each model is random in its config and its weights, built by transformers in true float64 (RWKV: run
by its reference), saved as a user would save it, loaded by ``mi_ref`` in float64 and in
float32, and compared at every hook. Exits 1 if an error is greater than what the golden tests
allow, or a model is refused.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
import transformers

import mi_ref
from golden.capture.modules import Arrays, capture, true_float64
from golden.fuzz import rwkv as rwkv_fuzz
from golden.fuzz.configs import FAMILIES, random_config, random_shape
from golden.make_golden import build, randomise
from golden.rwkv.record import MODEL_TYPES as RWKV
from mi_ref.output.tables import Table
from mi_ref.testing import relative_error, site_name

BOUNDS = {"float64": 1e-12, "float32": 5e-6}
LOGITS = "run.logits"
"""What a user reads, after a final soft-cap; not a hook point, and compared like one."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One random model; the same family and seed give the same one."""

    family: str
    seed: int

    @property
    def config(self) -> dict[str, Any]:
        """As ``config.json`` would be on the Hub."""
        return random_config(self.family, self._rng())

    def reference(self, folder: Path) -> tuple[list[list[int]], Arrays]:
        """Save the model in `folder`; return its prompt and what the reference computes of it."""
        weights = np.random.default_rng(self.seed)
        shape = random_shape(self._rng())
        tokens = torch.from_numpy(weights.integers(0, self.config["vocab_size"], shape))
        if self.family in RWKV:
            arrays = rwkv_fuzz.reference(self.config, tokens.tolist(), weights, folder)
            return tokens.tolist(), arrays | {LOGITS: arrays["unembed.hook_out"]}
        with true_float64(), torch.no_grad():
            model = build(self.config)
            randomise(model, weights)
            arrays = capture(model, tokens)
            arrays[LOGITS] = model(input_ids=tokens, use_cache=False).logits.numpy()
        # Weights are multiples of bfloat16's steps, hence the same in all three float types.
        saved: Any = copy.deepcopy(model).to(torch.float32)
        saved.save_pretrained(folder)
        return tokens.tolist(), arrays

    def _rng(self) -> Random:
        return Random(f"{self.family} {self.seed}")

    def __str__(self) -> str:
        command = f"python -m golden.fuzz --family {self.family} --seed {self.seed} --per-family 1"
        return f"{command}\n  {json.dumps(self.config)}"


@dataclass(slots=True)
class Findings:
    """The results of one family's trials."""

    worst: dict[str, dict[str, float]] = field(default_factory=dict)
    """{site: {dtype: greatest relative error}}, in forward order."""
    faults: list[str] = field(default_factory=list)

    def add(self, trial: Trial) -> None:
        """Run `trial` and keep its result."""
        with tempfile.TemporaryDirectory() as scratch:
            tokens, expected = trial.reference(Path(scratch))
            for dtype, bound in BOUNDS.items():
                try:
                    errors = dict(_errors(Path(scratch), dtype, tokens, expected))
                except mi_ref.MiRefError as refusal:
                    self.faults.append(f"refused: {refusal}\n  {trial}")
                    return
                self._keep(errors, dtype)
                if over := {hook: e for hook, e in errors.items() if not e <= bound}:
                    first = next(iter(over))
                    self.faults.append(
                        f"{dtype}: {len(over)} hooks over {bound:.0e}, the first {first} "
                        f"by {over[first]:.1e}\n  {trial}"
                    )

    def _keep(self, errors: dict[str, float], dtype: str) -> None:
        for hook, error in errors.items():
            site = hook if hook == LOGITS else site_name(hook)
            worst = self.worst.setdefault(site, dict.fromkeys(BOUNDS, 0.0))
            # A NaN must stay: no comparison with it is true.
            worst[dtype] = error if not error <= worst[dtype] else worst[dtype]

    def table(self, title: str) -> Table:
        """Return one row per site, the worst errors in bold."""
        table = Table(["site", *(f">{dtype}" for dtype in BOUNDS)], title)
        for site, worst in self.worst.items():
            cells = (f"{worst[dtype]:.1e}" for dtype in BOUNDS)
            highest = any(worst[dtype] == self.greatest(dtype)[0] for dtype in BOUNDS)
            table.add(site, *cells, style="bold" if highest else "")
        return table

    def greatest(self, dtype: str) -> tuple[float, str]:
        """Return the greatest error of all sites, and the site."""
        if not self.worst:
            return float("nan"), "none compared"
        return max((worst[dtype], site) for site, worst in self.worst.items())


def _errors(
    folder: Path, dtype: str, tokens: list[list[int]], expected: Arrays
) -> Iterator[tuple[str, float]]:
    model = mi_ref.from_pretrained(folder, dtype=dtype)
    hooks = [hook for hook in expected if hook != LOGITS]
    listed = [str(entry.point) for entry in model.hook_points]
    if listed != hooks:
        differing = [hook for hook in (*listed, *hooks) if (hook in listed) != (hook in hooks)]
        raise mi_ref.HookError(f"hook points differ from the reference: {differing or 'order'}")
    run = model.run(tokens, capture=hooks)
    for hook in hooks:
        yield hook, relative_error(model.backend.to_host(run[hook]), expected[hook])
    yield LOGITS, relative_error(model.backend.to_host(run.logits), expected[LOGITS])


def _fuzz(families: list[str], per_family: int, seed: int) -> dict[str, Findings]:
    from rich.console import Console
    from rich.progress import Progress

    found = {family: Findings() for family in families}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("", total=len(families) * per_family)
        for family, findings in found.items():
            progress.update(bar, description=family)
            for number in range(per_family):
                findings.add(Trial(family, seed + number))
                progress.advance(bar)
    return found


def _summary(found: dict[str, Findings], per_family: int) -> Table:
    table = Table(["family", ">models", ">float64", "at", ">float32", "at", ">faults"], "worst")
    for family, findings in found.items():
        cells = []
        for dtype in BOUNDS:
            error, site = findings.greatest(dtype)
            cells += [f"{error:.1e}", site]
        faults = len(findings.faults)
        table.add(family, per_family, *cells, faults or "", style="bold red" if faults else "")
    return table


def main() -> None:
    """Fuzz what the command line asks for; exit 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--per-family", type=int, default=10, help="models of each (default: 10)")
    parser.add_argument("--family", choices=FAMILIES, help="only this one (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of the first model (default: 0)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    # Some prompts are meant to be longer than their model was made for.
    warnings.filterwarnings("ignore", message="the prompt has")

    families = [options.family] if options.family else list(FAMILIES)
    found = _fuzz(families, options.per_family, options.seed)
    for family, findings in found.items():
        if findings.worst:
            findings.table(f"{family}, {options.per_family} random models").print()
    _summary(found, options.per_family).print()
    faults = [fault for findings in found.values() for fault in findings.faults]
    for fault in faults:
        print(fault)
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
