"""Run the tests that compare bits on several of OpenBLAS's kernels, those that this processor has.

``python tests/kernels.py``. OpenBLAS chooses its kernel by the processor, and each adds in an order
of its own: what holds bit by bit on one machine may differ by a rounding on the next.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

KERNELS = ("Haswell", "Zen", "SkylakeX", "Prescott")
PROBE = """
import numpy as np
for dtype in (np.float32, np.float64):
    x = np.ones((200, 200), dtype=dtype)
    x @ x, x @ x[0], x[:1] @ x[:1].T
"""
# Guarded inputs, as tests that go from point to point take some of the points there. Types of
# arrays do not depend on the kernel: checking them would double the time.
TESTS = ("-q", "-m", "bits", "--backend", "numpy-frozen-inputs", "-n", "auto")
FIXED = {"OPENBLAS_NUM_THREADS": "1", "JAXTYPING_DISABLE": "1"}


def python(asked: str, *arguments: str, quiet: bool) -> subprocess.CompletedProcess[str]:
    """Run Python with a kernel asked for."""
    verbose = {"OPENBLAS_VERBOSE": "2"} if quiet else {}
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | FIXED | verbose | {"OPENBLAS_CORETYPE": asked},
        cwd=Path(__file__).parents[1],
        capture_output=quiet,
        text=True,
        check=False,
    )


def kernel_that_runs(asked: str) -> str | None:
    """Return OpenBLAS's own name of the kernel that it runs, None if the processor cannot."""
    probe = python(asked, "-c", PROBE, quiet=True)
    if probe.returncode == -signal.SIGILL:
        return None
    probe.check_returncode()
    named = re.findall(r"^Core: (\w+)$", probe.stdout + probe.stderr, re.MULTILINE)
    if not named:
        sys.exit("NumPy does not use an OpenBLAS that chooses among kernels: there is one to test.")
    return str(named[-1])


def main() -> int:
    """Run the tests once for each kernel; return 1 if any failed."""
    failed = False
    # The others would be collected in vain, by every worker.
    marked = [
        str(file)
        for file in sorted(Path(__file__).parent.rglob("test_*.py"))
        if "@pytest.mark.bits" in file.read_text("utf-8")
    ]
    tested: set[str] = set()
    for asked in KERNELS:
        runs = kernel_that_runs(asked)
        if runs is None:
            said = "skipped, this processor lacks its instructions"
        elif runs in tested:
            said = f"skipped, OpenBLAS runs {runs} for it, which was tested"
        else:
            said = f"OpenBLAS runs {runs}"
        sys.stdout.write(f"{asked}: {said}\n")
        sys.stdout.flush()
        if runs is not None and runs not in tested:
            tested.add(runs)
            failed |= python(asked, "-m", "pytest", *TESTS, *marked, quiet=False).returncode != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
