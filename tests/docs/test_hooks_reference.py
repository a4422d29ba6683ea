"""HOOKS.md lists every site as the code has it, and its examples print what it shows."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from mi_ref.hooks.sites import ALL_SITES, LayerSite
from tests.docs.test_readme import assert_same

TEXT = (Path(__file__).parents[2] / "HOOKS.md").read_text(encoding="utf-8")


def test_the_tables_have_every_site_as_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)(?:\[l\])?` \| `([^`]+)` \| ([^|]+) \| (.+) \|$", TEXT, re.M)
    shown = {name: (string, axes, meaning) for name, string, axes, meaning in rows}
    assert len(shown) == len(rows)
    assert shown == {
        site.name: (
            site.string.replace("{layer}", "{l}"),
            " ".join(site.axes),
            site.doc,
        )
        for site in ALL_SITES
    }
    marked = set(re.findall(r"^\| `(\w+)\[l\]`", TEXT, re.M))
    assert marked == {site.name for site in ALL_SITES if isinstance(site, LayerSite)}


def test_the_example_prints_what_is_shown() -> None:
    _, _, after = TEXT.partition(
        "<!-- recurrent hooks: run by tests/docs/test_hooks_reference.py -->"
    )
    code = after.partition("```python\n")[2].partition("```")[0]
    assert "import mi_ref" in code
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "HOOKS.md", "exec"), {"__name__": "hooks"})
    assert_same(printed.getvalue(), after.partition("It prints\n\n```\n")[2].partition("```")[0])
