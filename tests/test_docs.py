"""The pages in docs run as printed, print what they show, and name what there is."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from test_readme import assert_same

from mi_ref import analysis, do

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))
BLOCK = re.compile(r"<!-- run -->\n```python\n(.*?)```\n(?:\n```\n(.*?)```\n)?", re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_it_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = page.read_text(encoding="utf-8")
    found = BLOCK.findall(text)
    assert len(found) == text.count("<!-- run -->") > 0
    # What a block writes goes nowhere near the repository.
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": page.stem}
    for code, shown in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, page.name, "exec", dont_inherit=True), names)
        assert_same(printed.getvalue(), shown)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_every_analysis_has_its_words_and_its_call() -> None:
    text = (DOCS / "analyses.md").read_text(encoding="utf-8")
    public = {
        name for name in analysis.__all__ if isinstance(getattr(analysis, name), FunctionType)
    }
    spoken = set(re.findall(r"`(\w+)`", text))
    called = set(re.findall(r"analysis\.(\w+)\(", text))
    assert public - spoken == set()
    assert public - called == set()


def test_every_intervention_has_its_words() -> None:
    made = {
        name
        for name, value in vars(do).items()
        if isinstance(value, FunctionType) and value.__module__ == do.__name__
    }
    text = (DOCS / "interventions.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `do\.(\w+)\(", text, re.M)) == made
    assert made <= set(re.findall(r"\bdo\.(\w+)\(", text.partition("## What there is")[2]))
