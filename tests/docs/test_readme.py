"""The README's example and demo print the output shown there, and the files it names exist."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from mi_ref.cli import main

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """Return the README's code blocks in one language; ``""`` for plain output."""
    return [
        body for name, body in re.findall(r"```(\w*)\n(.*?)```", README, re.S) if name == language
    ]


def assert_same(printed: str, shown: str) -> None:
    """Compare word by word; numbers may differ in their last digit, as array libraries round."""
    found, wanted = printed.split(), shown.split()
    assert len(found) == len(wanted)
    for word, other in zip(found, wanted, strict=True):
        try:
            assert float(word) == pytest.approx(float(other), rel=0.02, abs=2e-3)
        except ValueError:
            assert word == other


@pytest.mark.parametrize("title", ["quick start"])
def test_an_example_prints_what_the_readme_shows(title: str) -> None:
    _, _, after = README.partition(f"<!-- {title}: run by tests/docs/test_readme.py -->")
    code = after.partition("```python\n")[2].partition("```")[0]
    assert "import mi_ref" in code
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "readme"})
    shown = after.partition("It prints\n\n```\n")[2].partition("```")[0]
    assert shown
    assert_same(printed.getvalue(), shown)


def test_the_demo_prints_what_the_readme_shows() -> None:
    command = 'mi-ref lens --model atlas --prompt "The capital of France is" --target " Paris"'
    assert command in README
    assert command in (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        arguments = ["lens", "--model", "atlas", "--prompt", "The capital of France is"]
        assert main([*arguments, "--target", " Paris"]) == 0
    assert_same(printed.getvalue(), blocks("")[0])


def test_every_file_that_the_readme_names_is_there() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if "://" not in target:
            assert (Path(__file__).parents[2] / target).exists(), target
