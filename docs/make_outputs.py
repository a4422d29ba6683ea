"""Write what the pages of this folder show: each block marked ``<!-- run -->`` is run, in order.

A page's blocks share their names, and what a block prints stands below it. Run it from anywhere::

    python docs/make_outputs.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BLOCK = re.compile(r"<!-- run -->\n```python\n(.*?)```\n(?:\n```\n(.*?)```\n)?", re.S)


def outputs(page: Path) -> Iterator[tuple[re.Match[str], str]]:
    """Run a page's blocks in a folder of their own; yield each with what it prints."""
    names: dict[str, Any] = {"__name__": page.stem}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            printed = io.StringIO()
            os.chdir(folder)
            try:
                with contextlib.redirect_stdout(printed):
                    exec(compile(block[1], page.name, "exec", dont_inherit=True), names)
            finally:
                os.chdir(before)
            yield block, printed.getvalue()


def rewritten(page: Path) -> str:
    """Return the page with what its blocks print."""
    text, parts, done = page.read_text(encoding="utf-8"), list[str](), 0
    for block, printed in outputs(page):
        shown = f"\n```\n{printed.rstrip()}\n```\n" if printed else ""
        parts += [text[done : block.start()], f"<!-- run -->\n```python\n{block[1]}```\n{shown}"]
        done = block.end()
    return "".join([*parts, text[done:]])


def main() -> None:
    """Write every page."""
    for page in sorted(HERE.glob("*.md")):
        page.write_text(rewritten(page), encoding="utf-8")


if __name__ == "__main__":
    main()
