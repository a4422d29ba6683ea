"""Time sweeps against the same done by hand with HuggingFace transformers and forward hooks.

Each sweep goes from prompts to numbers: patching the residual stream of one prompt into another's
run, and zeroing every head. transformers does both with one forward pass per cell, the obvious way,
and with 16 cells as the rows of one batch. Every number of threads gets its own process::

    python -m bench.sweeps           # about four minutes on two idle cores
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from statistics import median
from typing import Any, TypeAlias

import numpy as np

import mi_ref
from bench import report
from bench.make_model import SHAPES, cached_model
from bench.peers import load_huggingface
from bench.run import REST
from mi_ref.analysis import ablation, activation_patching
from mi_ref.analysis.measure.metrics import logit_difference

Numbers: TypeAlias = np.ndarray[Any, Any]
"""``[cell, 2]``: the logit difference, and the KL divergence from the clean run in nats."""
Side: TypeAlias = Callable[[str, Sequence[int]], Numbers]
"""Given a sweep and its layers, which vary slowest, return its numbers."""
HandEdit: TypeAlias = tuple[Any, Callable[[Any], None]]
"""A module, and what changes its input ``[pos, …]`` in place."""

SHAPE = SHAPES["135m"]
LAYERS = range(SHAPE["num_hidden_layers"])
N_HEADS, D_HEAD = SHAPE["num_attention_heads"], SHAPE["head_dim"]
CLEAN = np.random.default_rng(0).integers(SHAPE["vocab_size"], size=12).tolist()
CORRUPTED = [*CLEAN[:5], (CLEAN[5] + 1) % SHAPE["vocab_size"], *CLEAN[6:]]
POSITIONS = (5, 7, 9, 11)
TOKEN, OTHER = 1000, 2000
SWEEPS = {"patching": len(POSITIONS), "ablation": N_HEADS}
"""Each with the number of its cells in a layer."""
SIDES = ("mi_ref", "HF, 16 rows", "HF, one by one")
TIMED = {name: LAYERS[::5] if name == SIDES[2] else LAYERS for name in SIDES}
"""Layers whose cells are timed: one by one the whole takes a minute, and each pass the same."""
FEWEST, MOST, SECONDS = 2, 9, 45.0
"""Rounds of a sweep that count; after so many seconds no further one begins."""
TOLERANCE = 1e-3


def own(model: mi_ref.Model, sweep: str, layers: Sequence[int]) -> Numbers:
    """Do a sweep as a user of this library calls it."""
    if sweep == "ablation":
        found = ablation(model, CLEAN, target=TOKEN, other=OTHER, layers=layers)
        return np.array([(effect.logit_difference, effect.kl) for effect in found.effects])
    metric = logit_difference(model, TOKEN, OTHER)
    grid = activation_patching(
        model, CLEAN, CORRUPTED, metric=metric, layers=layers, positions=POSITIONS
    )
    return np.stack([np.ravel(grid.values), grid.kl * (1 - np.ravel(grid.recovery))], axis=-1)


def by_hand(model: Any, rows: int, sweep: str, layers: Sequence[int]) -> Numbers:
    """Do a sweep with transformers, with a given number of cells per forward pass."""
    kept: dict[int, Any] = {}

    def keep(stream: Any, layer: int) -> None:
        kept[layer] = stream.clone()

    def put(stream: Any, layer: int, pos: int) -> None:
        stream[pos] = kept[layer][pos]

    def zero(z: Any, head: int) -> None:
        z[:, head * D_HEAD : (head + 1) * D_HEAD] = 0

    blocks, edits, reading = model.model.layers, list[HandEdit](), list[HandEdit]()
    for n in layers:
        if sweep == "patching":
            reading.append((blocks[n], partial(keep, layer=n)))
            edits += [(blocks[n], partial(put, layer=n, pos=pos)) for pos in POSITIONS]
        else:
            heads = blocks[n].self_attn.o_proj
            edits += [(heads, partial(zero, head=head)) for head in range(N_HEADS)]
    clean = log_probs(hooked(model, CLEAN, 1, reading))
    prompt, found = CORRUPTED if sweep == "patching" else CLEAN, []
    for start in range(0, len(edits), rows):
        batch = edits[start : start + rows]
        logits = hooked(model, prompt, len(batch), batch)
        kl = (clean.exp() * (clean - log_probs(logits))).sum(-1)
        difference = logits[:, TOKEN].double() - logits[:, OTHER].double()
        found += list(zip(difference.tolist(), kl.tolist(), strict=True))
    return np.array(found)


def log_probs(logits: Any) -> Any:
    """Return what mi_ref measures divergences with: float64, whatever the model computes in."""
    return logits.double().log_softmax(-1)


def hooked(model: Any, prompt: list[int], rows: int, edits: Sequence[HandEdit]) -> Any:
    """Return the logits after a prompt in each row, each edit in its own; in one row, all in it."""
    import torch

    def before(_module: Any, given: Any, row: int, edit: Callable[[Any], None]) -> None:
        edit(given[0][row])

    handles = [
        module.register_forward_pre_hook(partial(before, row=number % rows, edit=edit))
        for number, (module, edit) in enumerate(edits)
    ]
    try:
        with torch.inference_mode():
            ids = torch.tensor([prompt] * rows)
            return model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, 0]
    finally:
        for handle in handles:
            handle.remove()


def check_equal_work(sides: Mapping[str, Side], sweep: str) -> float:
    """Return the difference of numbers as a share of their spread; stop if it exceeds rounding."""
    first, *others = (side(sweep, TIMED[SIDES[2]]) for side in sides.values())
    worst = max(float((np.abs(x - first).max(0) / np.ptp(first, axis=0)).max()) for x in others)
    if not worst <= TOLERANCE:
        raise SystemExit(
            f"{sweep}: numbers differ by {worst:.1e} of their spread; up to {TOLERANCE:g} is"
            " rounding. The sides do not compute the same, so their times mean nothing."
        )
    return worst


def measure(sides: Mapping[str, Side], sweep: str) -> dict[str, Any]:
    """Return the seconds of each side, round by round, in turns."""
    cell: dict[str, Any] = {"sweep": sweep, "worst": check_equal_work(sides, sweep)}
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    clock, end = report.clock(), time.monotonic() + SECONDS
    for number in range(MOST):
        if number >= FEWEST and time.monotonic() > end:
            break
        for turn in range(len(SIDES)):
            name = SIDES[(number + turn) % len(SIDES)]
            gc.collect()
            time.sleep(REST)
            start = clock()
            sides[name](sweep, TIMED[name])
            # One by one, the clean run counts as a pass too.
            passes = [1 + SWEEPS[sweep] * len(layers) for layers in (LAYERS, TIMED[name])]
            seconds[name].append((clock() - start) * passes[0] / passes[1])
    return {**cell, "seconds": seconds}


def row(threads: int, cell: dict[str, Any]) -> list[str]:
    """Return one row of the table."""
    times, n_cells = [cell["seconds"][name] for name in SIDES], SWEEPS[cell["sweep"]] * len(LAYERS)
    ratios = [[a / b for a, b in zip(times[0], other, strict=True)] for other in times[1:]]
    return [
        str(threads), cell["sweep"], str(n_cells), str(len(times[0])),
        *(f"{median(each):.2f}" for each in times), *map(report.with_spread, ratios),
        f"{cell['worst']:.0e}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, report.cores()}))
    parser.add_argument("--markdown", action="store_true", help="write the table into README.md")
    parser.add_argument("--cells", action="store_true", help="print measurements as JSON only")
    args = parser.parse_args()
    folder = cached_model()
    if args.cells:
        hand = partial(by_hand, load_huggingface(folder, report.threads()))
        calls = (partial(own, mi_ref.from_pretrained(folder)), partial(hand, 16), partial(hand, 1))
        sides = dict(zip(SIDES, calls, strict=True))
        print(json.dumps([measure(sides, sweep) for sweep in SWEEPS]))
        return
    heading = report.machine()
    print(heading, report.unrest(), flush=True)
    head = ["threads", "sweep", "cells", "rounds", *(f"{name}, s" for name in SIDES)]
    table = [[*head, *(f"mi_ref / {name}" for name in SIDES[1:]), "numbers agree to"]]
    for threads in args.threads:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "bench.sweeps", "--cells"]
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True)
        table += [row(threads, cell) for cell in json.loads(done.stdout)]
    text = report.table(table)
    print("\n" + text)
    if args.markdown:
        report.write_section("sweeps", f"{heading}.\n\n{text}")


if __name__ == "__main__":
    main()
