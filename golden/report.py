"""Print how far ``mi_ref`` is from HuggingFace in each golden case; needs neither torch nor it.

Run it from the root of the repository: ``python -m golden.report [--backend NAME]``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import mi_ref
from mi_ref.tables import Table
from mi_ref.testing import golden_cases, golden_errors

DTYPES = ("float64", "float32")


def main() -> None:
    parser = argparse.ArgumentParser(description="Errors against the golden files.")
    parser.add_argument("--backend", default="numpy", help="array library (default: numpy)")
    backend = mi_ref.get_backend(parser.parse_args().backend)
    # One case is meant to be longer than its model was made for.
    warnings.filterwarnings("ignore", message="the prompt has")
    table = Table(["case", ">float64", "worst hook", ">float32", "worst hook"])
    worst = dict.fromkeys(DTYPES, 0.0)
    for case in golden_cases(Path(__file__).parent):
        cells = []
        for dtype in DTYPES:
            model = mi_ref.from_pretrained(case.folder, backend=backend, dtype=dtype)
            errors = golden_errors(model, case)
            hook = max(errors, key=errors.__getitem__)
            worst[dtype] = max(worst[dtype], errors[hook])
            cells += [f"{errors[hook]:.1e}", hook]
        table.add(case.name, *cells)
    table.add("all", f"{worst['float64']:.1e}", "", f"{worst['float32']:.1e}", "", style="bold")
    table.print()


if __name__ == "__main__":
    main()
