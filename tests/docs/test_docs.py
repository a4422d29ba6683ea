"""The pages in docs run, print the output they show, and name every part of the library."""

from __future__ import annotations

import re
from pathlib import Path
from types import FunctionType

import pytest

from docs.make_outputs import outputs
from golden.report import case_rows
from mi_ref import analysis, do
from mi_ref.families import FAMILIES
from mi_ref.testing import golden_cases
from tests.cli.test_cli_examples import parsers
from tests.docs.test_readme import assert_same

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(DOCS.glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_and_prints_what_it_shows(page: Path) -> None:
    found = list(outputs(page))
    assert len(found) == page.read_text(encoding="utf-8").count("<!-- run -->") > 0
    for block, printed in found:
        assert_same(printed, block["shown"] or "")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_table_of_golden_models_has_every_family_and_case() -> None:
    text = (DOCS / "proof.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \| [\d.e-]+ \| [\d.e-]+ \|$", text, re.M))
    found: dict[str, list[str]] = {family: [] for family in FAMILIES}
    for case in golden_cases(DOCS.parent / "golden" / "data"):
        found[case.manifest["family"]].append(case.name)
    assert rows == {family: ", ".join(names) for family, names in found.items()}


def test_the_table_of_checkpoints_has_every_family() -> None:
    text = (DOCS / "families.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| ", text, re.M)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows[1:]))) == sorted(FAMILIES)


def test_every_command_has_its_words() -> None:
    text = (DOCS / "command-line.md").read_text(encoding="utf-8").partition("<!-- run -->")[0]
    cells = " ".join(re.findall(r"^\| (`mi-ref .*?) \| ", text, re.M))
    named = {code.removeprefix("mi-ref ").split()[0] for code in re.findall(r"`([^`]+)`", cells)}
    assert named >= set(parsers())


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
    paths = sorted(Path(__file__).parents[1].rglob("test_*.py"))
    names, sources = {path.name for path in paths}, [path.read_text("utf-8") for path in paths]
    for defect, named in rows:
        for test in re.findall(r"`(.+?)`", named):
            assert test in names or any(f"def {test}(" in source for source in sources), defect


def test_the_table_of_golden_cases_is_the_one_printed() -> None:
    golden = DOCS.parent / "golden"
    table = "\n".join(case_rows(golden_cases(golden / "data")))
    assert f"\n\n{table}\n\n" in (golden / "README.md").read_text(encoding="utf-8")
