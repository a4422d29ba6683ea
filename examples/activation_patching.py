"""Which activation carries the answer? Put each one of a clean prompt into a corrupted one's run.

The residual stream shows where the answer is: at the subject, until heads have moved it to the last
token. The heads at the last token show which of them move it. None does so alone, so the script
patches the strongest ones together, more and more of them. Runs offline on the bundled model, or on
any checkpoint; the heat map of the first table goes to a file::

    python examples/activation_patching.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

from typing import Any

import mi_ref
from mi_ref import Model, at, do
from mi_ref.analysis import PatchingGrid, activation_patching, head_patching
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

CLEAN, CORRUPTED = "The capital of Italy is", "The capital of France is"
COUNTS = (1, 2, 4, 6, 8, 12)


def by_recovery(grid: PatchingGrid) -> list[tuple[int, int]]:
    """Return every (layer, head), the one with the largest recovery first."""
    cells = {(n, m): v for n, row in enumerate(grid.recovery) for m, v in enumerate(row)}
    return sorted(cells, key=cells.__getitem__, reverse=True)


def main(
    name: str = "atlas", picture: str | None = None
) -> tuple[PatchingGrid, list[tuple[int, int]], list[Any]]:
    """Print all; return the grid of streams, the heads in order, and their effect together."""
    model: Model = mi_ref.from_pretrained(name)
    streams = activation_patching(model, CLEAN, CORRUPTED)
    heads = head_patching(model, CLEAN, CORRUPTED, positions=-1)
    for grid in (streams, heads):
        print(grid, end="\n\n")
    print(streams.summary(), end="\n\n")
    if picture:
        streams.plot(picture)

    order, site = by_recovery(heads), at.rwkv_wkv if model.cfg.recurrent else at.z
    clean = model.run(CLEAN, capture=[site[:]])
    edits = [(site[n], do.replace(clean[site[n]], heads=[m], positions=-1)) for n, m in order]
    together = [model.run(CORRUPTED, edits=edits[:count]).top(1)[0] for count in COUNTS]
    table = Table([">heads", "the last of them", "likeliest", ">p"], "heads patched together")
    for count, best in zip(COUNTS, together, strict=True):
        layer, head = order[count - 1]
        table.add(count, f"{layer}.{head}", repr(best.token), f"{best.probability:.3f}")
    table.print()
    return streams, order, together


if __name__ == "__main__":
    run(main)
