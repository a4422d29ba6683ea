"""The table of planted mistakes below ``## Mutations`` of ``golden/README.md``.

``python tests/mistakes/table.py`` prints it.
"""

from __future__ import annotations

import sys
import warnings

import mi_ref
from mi_ref.testing import GoldenCase
from tests.mistakes.families import MISTAKES as OF_FAMILIES
from tests.mistakes.llama import MISTAKES as OF_LLAMA
from tests.mistakes.mutations import GOLDEN, TOLERANCE, Mistake, first_failing
from tests.mistakes.rwkv import MISTAKES as OF_RWKV

MISTAKES = OF_LLAMA + OF_FAMILIES + OF_RWKV
HEADER = "| mistake | case | first shows at | off in float64 | in float32 |\n|---|---|---|---|---|"


def row(mistake: Mistake) -> str:
    """Return a mistake's line, with the error of the first site."""
    case = GoldenCase(GOLDEN / mistake.case)
    errors, sites = [], []
    for dtype, bound in TOLERANCE.items():
        model = mi_ref.from_pretrained(case.folder, dtype=dtype)
        site, error = first_failing(mistake.plant(model), case, bound)
        sites.append(site)
        errors.append(f"{error:.1e}")
    return f"| {mistake.what} | `{mistake.case}` | `{sites[0]}` | {' | '.join(errors)} |"


def rows(readme: str) -> list[list[str]]:
    """Return the cells of the README's table, without the header."""
    section = readme.partition("\n## Mutations\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in lines]


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message="the prompt has 9 tokens")
    sys.stdout.write("\n".join([HEADER, *map(row, MISTAKES)]) + "\n")
