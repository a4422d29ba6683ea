"""The README's examples run as printed and print what it shows."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from mi_ref.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in one language; ``""`` for plain output."""
    return [
        body for name, body in re.findall(r"```(\w*)\n(.*?)```", README, re.S) if name == language
    ]


def shown(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().splitlines()]


def test_the_quick_start_prints_what_the_readme_shows() -> None:
    (code,) = (block for block in blocks("python") if "import mi_ref" in block)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    assert shown(printed.getvalue()) == shown(blocks("")[1])


def test_the_demo_prints_what_the_readme_shows() -> None:
    command = 'mi-ref lens --model atlas --prompt "The capital of France is" --target " Paris"'
    assert command in README
    assert command in (Path(__file__).parents[1] / "Makefile").read_text(encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        arguments = ["lens", "--model", "atlas", "--prompt", "The capital of France is"]
        assert main([*arguments, "--target", " Paris"]) == 0
    assert shown(printed.getvalue()) == shown(blocks("")[0])


def test_every_file_that_the_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[1] / target).exists(), target
