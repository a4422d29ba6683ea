"""Print how far ``mi_ref`` is from HuggingFace in each golden case; needs neither torch nor it.

Run it from the root of the repository: ``python -m golden.report [--backend NAME] [--markdown]``.
With ``--markdown`` it prints the table of ``docs/proof.md``, one row per family; ``--cases`` prints
the table of cases in ``golden/README.md`` and runs nothing.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from pathlib import Path

import mi_ref
from golden.cases import CASES
from mi_ref.families import FAMILIES
from mi_ref.output.tables import Table
from mi_ref.testing import GoldenCase, golden_cases, golden_errors

DTYPES = ("float64", "float32")
Worst = dict[str, tuple[float, str]]


def main() -> None:
    """Measure every case and print the table asked for."""
    parser = argparse.ArgumentParser(description="Errors against the golden files.")
    parser.add_argument("--backend", default="numpy", help="array library (default: numpy)")
    parser.add_argument("--markdown", action="store_true", help="rows of docs/proof.md")
    parser.add_argument("--cases", action="store_true", help="rows of golden/README.md")
    options = parser.parse_args()
    if options.cases:
        print("\n".join(case_rows(golden_cases(Path(__file__).parent / "data"))))
        return
    backend = mi_ref.get_backend(options.backend)
    # One case is meant to be longer than its model was made for.
    warnings.filterwarnings("ignore", message="the prompt has")
    measured = [
        (case, worst(case, backend)) for case in golden_cases(Path(__file__).parent / "data")
    ]
    if options.markdown:
        print("\n".join(markdown(measured)))
    else:
        by_case(measured).print()


def worst(case: GoldenCase, backend: mi_ref.Backend) -> Worst:
    """Return the greatest error of a case in each precision, and the hook that has it."""
    found = {}
    for dtype in DTYPES:
        model = mi_ref.from_pretrained(case.folder, backend=backend, dtype=dtype)
        errors = golden_errors(model, case)
        hook = max(errors, key=errors.__getitem__)
        found[dtype] = (errors[hook], hook)
    return found


def by_case(measured: list[tuple[GoldenCase, Worst]]) -> Table:
    """Return one row per case, and the worst of all."""
    table = Table(["case", ">float64", "worst hook", ">float32", "worst hook"])
    for case, found in measured:
        cells = [cell for dtype in DTYPES for cell in (f"{found[dtype][0]:.1e}", found[dtype][1])]
        table.add(case.name, *cells)
    double, single = (max(found[dtype][0] for _, found in measured) for dtype in DTYPES)
    table.add("all", f"{double:.1e}", "", f"{single:.1e}", "", style="bold")
    return table


def markdown(measured: list[tuple[GoldenCase, Worst]]) -> list[str]:
    """Return the rows of ``docs/proof.md``: each family's cases and worst errors."""
    lines = [
        "| `model_type` | golden cases | worst error, float64 | worst error, float32 |",
        "|---|---|---|---|",
    ]
    for family in FAMILIES:
        own = [(case, found) for case, found in measured if case.manifest["family"] == family]
        names = ", ".join(case.name for case, _ in own)
        double, single = (max(found[dtype][0] for _, found in own) for dtype in DTYPES)
        lines.append(f"| `{family}` | {names} | {double:.1e} | {single:.1e} |")
    return lines


def case_rows(recorded: Sequence[GoldenCase]) -> list[str]:
    """Return the rows of ``golden/README.md``: each case's size on disk and what it covers."""
    lines, family = ["| case | kB | covers |", "|---|---|---|"], ""
    by_name = {case.name: case for case in recorded}
    for name, case in CASES.items():
        if by_name[name].manifest["family"] != family:
            family = by_name[name].manifest["family"]
            lines.append(f"| **{family}** | | |")
        size = sum(path.stat().st_size for path in by_name[name].folder.iterdir())
        lines.append(f"| `{name}` | {size / 1000:.0f} | {case.covers} |")
    return lines


if __name__ == "__main__":
    main()
