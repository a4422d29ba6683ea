"""Sweeps in real processes, killed and interrupted half-way, give the same result when resumed."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROMPT = ["--prompt", "The capital of France is"]
ABLATE = ["ablate", *PROMPT, "--what", "neuron", "--layer", "3"]
TRACE = ["trace", *PROMPT, "--subject", " France", "--draws", "10"]
STARTED, PATIENCE, TRIES = 20, 120, 5
"""Lines of the file after which a process is stopped, seconds to wait for them, and attempts."""


def start(folder: Path, command: list[str], name: str) -> subprocess.Popen[str]:
    """Start a sweep, cell by cell, that writes finished cells to `name`.jsonl."""
    kept = ["--rows", "1", "--resume", f"{name}.jsonl", "--json", f"{name}.json"]
    return subprocess.Popen(
        [sys.executable, "-m", "mi_ref", *command, *kept],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def stopped(folder: Path, command: list[str], name: str, how: signal.Signals) -> tuple[int, str]:
    """Stop a sweep that has begun; return its status and what it said."""
    for _ in range(TRIES):
        with start(folder, command, name) as process:
            deadline = time.monotonic() + PATIENCE
            while lines(folder / f"{name}.jsonl") < STARTED and process.poll() is None:
                assert time.monotonic() < deadline, "it did not begin"
                time.sleep(0.002)
            process.send_signal(how)
            out, err = process.communicate(timeout=PATIENCE)
        if not out:
            return process.returncode, err
        # On a busy machine the sweep may finish before this test runs again.
        for path in folder.glob(f"{name}.*"):
            path.unlink()
    raise AssertionError("it ended each time before it could be stopped")


def finished(folder: Path, command: list[str], name: str) -> str:
    """Run a sweep to its end; return what it printed."""
    with start(folder, command, name) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    return out


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("command", "how", "status", "said"),
    [
        (ABLATE, "SIGKILL", -9, ""),
        (TRACE, "SIGINT", 130, "mi-ref: interrupted\n"),
    ],
)
def test_a_stopped_process_is_gone_on_with(
    tmp_path: Path, command: list[str], how: str, status: int, said: str
) -> None:
    assert stopped(tmp_path, command, "part", signal.Signals[how]) == (status, said)
    kept = (tmp_path / "part.jsonl").read_bytes()
    assert not (tmp_path / "part.json").exists()
    whole = finished(tmp_path, command, "whole")
    assert STARTED <= kept.count(b"\n") < lines(tmp_path / "whole.jsonl")
    assert finished(tmp_path, command, "part") == whole
    for end in ("jsonl", "json"):
        assert (tmp_path / f"part.{end}").read_bytes() == (tmp_path / f"whole.{end}").read_bytes()
    assert (tmp_path / "part.jsonl").read_bytes().startswith(kept)
