"""Tables, and a description of the machine they come from."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

README = Path(__file__).with_name("README.md")
PACKAGES = ("mi_ref", "numpy", "torch", "transformers")


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the lower quartile, the median and the upper quartile."""
    if len(values) < 2:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def with_spread(values: Sequence[float], digits: int = 2) -> str:
    """Return ``median (lower quartile-upper quartile)``."""
    low, middle, high = quartiles(values)
    return f"{middle:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def verdict(ratio: float | None, target: float | None) -> tuple[str, str]:
    """Return the target as text and whether it is met."""
    if target is None or ratio is None:
        return "", ""
    return f"≤ {target:g}", "met" if ratio <= target else "NOT MET"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table, aligned so that it reads as plain text too; first row: the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |"
        for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


def machine() -> str:
    """Return date, processor, cores, load and versions in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "unknown"
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {cores()} cores, computing on"
        f" {threads()}, load {load} at the start; Python {platform.python_version()}, {versions}"
    )


def threads() -> int:
    """Return how many threads both sides compute with: all cores, or what OpenBLAS is told."""
    return int(os.environ.get("OPENBLAS_NUM_THREADS") or cores())


def clock() -> Callable[[], float]:
    """Return the clock to measure with: on one thread, one that runs only while the process does.

    So other programs' turns on the core do not count.
    """
    return time.process_time if threads() == 1 else time.perf_counter


def unrest() -> str:
    """Return a warning if other programs keep this machine busy, else nothing."""
    if threads() == 1 or not hasattr(os, "getloadavg") or os.getloadavg()[0] < 0.5:
        return ""
    # Both libraries' threads wait for each other by spinning: one busy core can slow either side
    # tenfold, and not both alike.
    return "\nWARNING: other programs are running, so not even the ratios can be relied on."


def processor() -> str:
    """Return the processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def write_section(name: str, text: str, readme: Path = README) -> None:
    """Replace the text between two markers of the README.

    Parameters
    ----------
    name : str
        Of the section: it is between ``<!-- name -->`` and ``<!-- /name -->``.
    text : str
        The new text.
    readme : Path
        File with the markers.
    """
    start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = readme.read_text(encoding="utf-8").partition(start)
    _, found_end, after = rest.partition(end)
    if not (found and found_end):
        raise SystemExit(f"{readme} lacks {start} or {end}: put both where the table belongs.")
    readme.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")
