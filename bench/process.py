"""Measure whole processes: start to top-5 prediction, peak memory, import time.

Each measurement is a fresh Python that runs a short program, in turns with the one it is compared
with; files are in the operating system's cache::

    python -m bench.process

Needs a system with ``os.wait4`` (Linux, macOS).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import report
from bench.make_model import DTYPES, SHAPES, cached_model

HERE = Path(__file__).parent
PROMPT = "31415926"
"""Eight tokens: the benchmark's tokenizer merges no digits."""
RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in one unit of ``ru_maxrss``."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The time and memory of one process."""

    wall: float
    user: float
    peak_bytes: int
    """Most memory that was resident, pages of mapped files that it touched included."""
    output: str


def spend(arguments: Sequence[str]) -> Usage:
    """Run Python with `arguments` to its end.

    Raises
    ------
    SystemExit
        If it fails.
    """
    # Bytecode is written, as it is for any installed library; no side may ask the Hub.
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, *arguments], stdout=output, stderr=errors, env=environment
        )
        # Rather than Popen.wait: it gives the usage of this one child.
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            raise SystemExit(f"python {' '.join(arguments)} failed:\n{errors.read()}")
        printed = output.read()
    return Usage(wall, usage.ru_utime, usage.ru_maxrss * RSS_UNIT, printed)


def in_turns(commands: dict[str, list[str]], rounds: int) -> dict[str, list[Usage]]:
    """Run every command `rounds` times in rotating order, after a round that does not count."""
    usages: dict[str, list[Usage]] = {name: [] for name in commands}
    names = list(commands)
    for number in range(rounds + 1):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            usage = spend(commands[name])
            if number:
                usages[name].append(usage)
    return usages


def compared(
    what: str, usages: dict[str, list[Usage]], field: str, unit: float, target: float | None
) -> list[str]:
    """Return a row: both sides' medians, the ratio with its quartiles, target, verdict."""
    ours, theirs = ([getattr(u, field) for u in side] for side in usages.values())
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    medians = [f"{statistics.median(side) / unit:.4g}" for side in (ours, theirs)]
    limit, met = report.verdict(statistics.median(ratios), target)
    return [what, *medians, report.with_spread(ratios), limit, met]


def start_to_top5(folder: Path, rounds: int) -> list[list[str]]:
    """Compare a whole program's time and memory with that of the transformers one."""
    usages = in_turns(
        {
            "mi_ref": [str(HERE / "top5_mi_ref.py"), str(folder), PROMPT],
            "transformers": [str(HERE / "top5_transformers.py"), str(folder), PROMPT],
        },
        rounds,
    )
    name = "start to top-5"
    return [
        compared(f"{name}, wall s", usages, "wall", 1, 0.1),
        compared(f"{name}, user s", usages, "user", 1, None),
        compared(f"{name}, peak MB", usages, "peak_bytes", 1e6, None),
    ]


def import_time(rounds: int) -> list[list[str]]:
    """Compare importing the library, bare and until it can load a model, with importing NumPy."""
    found = []
    # Names load on first use, so the bare import shows little; the second line is the honest sum.
    for what, code, target in (
        ("import", "import mi_ref", 1.5),
        ("until ready", "import mi_ref; mi_ref.from_pretrained; mi_ref.get_backend('numpy')", None),
    ):
        usages = in_turns({"mi_ref": ["-c", code], "numpy": ["-c", "import numpy"]}, rounds)
        for field in ("wall", "user"):
            found.append(compared(f"{what}, {field} s (against numpy)", usages, field, 1, target))
    return found


def peak_memory(folder: Path, lengths: Sequence[int], rounds: int) -> list[list[str]]:
    """Compare the peak, less what the pass returned, with the size of the weights' file."""
    weights = (folder / "model.safetensors").stat().st_size
    found = []
    for n_tokens in lengths:
        for kept in ("last", "all", "everything"):
            arguments = [str(HERE / "memory_mi_ref.py"), str(folder), str(n_tokens), kept]
            usages = [spend(arguments) for _ in range(rounds)]
            peak = statistics.median(u.peak_bytes for u in usages)
            returned = int(usages[0].output)
            ratio = (peak - returned) / weights
            shown = "everything captured" if kept == "everything" else f"{kept} logits"
            found.append(
                [
                    f"{n_tokens} tokens, {shown}",
                    *(f"{n / 1e6:.0f}" for n in (peak, returned, weights)),
                    f"{ratio:.2f}",
                    *report.verdict(ratio, 1.25),
                ]
            )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the stored weights")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--rounds", type=int, default=5, help="of whole programs")
    parser.add_argument("--imports", type=int, default=15, help="rounds of the import alone")
    parser.add_argument("--markdown", action="store_true", help="write the tables into README.md")
    args = parser.parse_args()

    heading = f"{report.machine()}. Shape {args.shape}, {args.dtype} checkpoint."
    print(heading, report.unrest(), flush=True)
    folder = cached_model(args.shape, args.dtype)
    head = ["", "mi_ref", "other", "ratio (quartiles)", "target", ""]
    times = report.table([head, *import_time(args.imports), *start_to_top5(folder, args.rounds)])
    print(f"\n{times}", flush=True)
    head = ["peak memory of one pass, MB", "peak", "returned", "weights"]
    head += ["(peak - returned) / weights", "target", ""]
    memory = report.table([head, *peak_memory(folder, args.tokens, 3)])
    print(f"\n{memory}")
    if args.markdown:
        report.write_section("process", f"{heading}\n\n{times}\n\n{memory}")


if __name__ == "__main__":
    main()
