"""What acts on what directly? Find the heads that write the answer, then what writes their inputs.

Path patching holds later attention fixed, so that a change arrives by the direct path only. In the
bundled model none of the four strongest heads moves the prediction far alone. Their contribution is
in their values, where the first MLP wrote it, and hardly in queries and keys. Shares of single
paths do not sum to the share of all together. Runs offline on the bundled model, or on any
transformer; the heat map of the first table goes to a file::

    python examples/path_patching.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model, at
from mi_ref.analysis.patching.grid import PatchingGrid
from mi_ref.analysis.patching.paths import Receiver, path_patching
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

CLEAN, CORRUPTED = "The capital of Italy is", "The capital of France is"
Strongest = tuple[int, int, float]


def strongest(grid: PatchingGrid, count: int) -> list[Strongest]:
    """Return layer, column and recovery of the cells that move the prediction most."""
    cells = [(n, m, v) for n, row in enumerate(grid.recovery) for m, v in enumerate(row)]
    return sorted(cells, key=lambda cell: -abs(cell[2]))[:count]


def main(
    name: str = "atlas", picture: str | None = None
) -> tuple[PatchingGrid, list[Strongest], dict[tuple[str, str], Strongest]]:
    """Print all; return the direct paths, the strongest of them, and what feeds those heads."""
    model: Model = mi_ref.from_pretrained(name)
    direct = path_patching(model, CLEAN, CORRUPTED)
    print(direct, direct.summary(), sep="\n\n", end="\n\n")
    movers = strongest(direct, 4)
    named = ", ".join(f"{layer}.{head}" for layer, head, _ in movers)

    group = model.cfg.n_heads // model.cfg.n_key_value_heads
    fed, table = {}, Table(["into", "from", "strongest", ">recovery"], f"direct paths into {named}")
    for what, site in {"queries": at.q, "keys": at.k, "values": at.v}.items():
        shared = 1 if site is at.q else group
        ends = [Receiver(site[layer], heads=head // shared) for layer, head, _ in movers]
        for kind in ("head", "mlp"):
            grid = path_patching(model, CLEAN, CORRUPTED, senders=kind, receivers=ends)
            layer, head, share = fed[what, kind] = strongest(grid, 1)[0]
            best = f"{layer}.{head}" if kind == "head" else layer
            table.add(what, f"{kind}s", best, f"{share:.3f}")
    table.print()
    if picture:
        direct.plot(picture)
    return direct, movers, fed


if __name__ == "__main__":
    run(main)
