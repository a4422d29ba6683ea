"""The pages in docs run as printed, print what they show, and name what there is."""

from __future__ import annotations

import re
from pathlib import Path
from types import FunctionType

import pytest
from test_readme import assert_same

from docs.make_outputs import outputs
from mi_ref import analysis, do

DOCS = Path(__file__).parents[1] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_it_shows(page: Path) -> None:
    found = list(outputs(page))
    assert len(found) == page.read_text(encoding="utf-8").count("<!-- run -->") > 0
    for block, printed in found:
        assert_same(printed, block[2] or "")


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


def test_every_defect_of_candle_mi_has_tests_that_there_are() -> None:
    text = (DOCS / "coming-from-candle-mi.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([^|`].*) \| (`test_.*`) \|$", text.partition("## Each defect")[2], re.M
    )
    assert len(rows) > 40
    sources = {path.name: path.read_text("utf-8") for path in Path(__file__).parent.glob("*.py")}
    for defect, named in rows:
        for test in re.findall(r"`(.+?)`", named):
            assert test in sources or any(f"def {test}(" in s for s in sources.values()), defect
