"""Calls of the command line through its entry point."""

from __future__ import annotations

from pathlib import Path

import pytest

from mi_ref.cli import main

Outcome = tuple[int, str, str]
"""Exit status, output and messages."""


def call(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> Outcome:
    """Call the program."""
    try:
        status = main(list(map(str, arguments)))
    except SystemExit as stop:
        status = stop.code if isinstance(stop.code, int) else 1
    return status, *capsys.readouterr()
