"""Write the outputs shown in this folder: run each block marked ``<!-- run -->``, in order.

A block is Python, or ``bash`` with lines that call ``mi-ref``. The Python blocks of a page share
their names, and the output of a block stands below it. Run this from anywhere::

    python docs/make_outputs.py
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mi_ref.cli import main as mi_ref_command

HERE = Path(__file__).parent
BLOCK = re.compile(
    r"<!-- run -->\n```(?P<language>python|bash)\n(?P<code>.*?)```\n"
    r"(?:\n```\n(?P<shown>.*?)```\n)?",
    re.S,
)


def outputs(page: Path) -> Iterator[tuple[re.Match[str], str]]:
    """Run a page's blocks in a temporary folder; yield each with its output."""
    names: dict[str, Any] = {"__name__": page.stem}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        for block in BLOCK.finditer(page.read_text(encoding="utf-8")):
            printed = io.StringIO()
            os.chdir(folder)
            try:
                with contextlib.redirect_stdout(printed):
                    if block["language"] == "bash":
                        call(block["code"])
                    else:
                        exec(compile(block["code"], page.name, "exec", dont_inherit=True), names)
            finally:
                os.chdir(before)
            yield block, printed.getvalue()


def call(commands: str) -> None:
    """Run lines of ``mi-ref``, each in this process."""
    for line in commands.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line)
        if program != "mi-ref" or mi_ref_command(arguments) != 0:
            raise SystemExit(f"expected a line of mi-ref that succeeds, got {line!r}")


def rewritten(page: Path) -> str:
    """Return the page with the output of its blocks."""
    text, parts, done = page.read_text(encoding="utf-8"), list[str](), 0
    for block, printed in outputs(page):
        shown = f"\n```\n{printed.rstrip()}\n```\n" if printed else ""
        code = f"<!-- run -->\n```{block['language']}\n{block['code']}```\n"
        parts += [text[done : block.start()], code, shown]
        done = block.end()
    return "".join([*parts, text[done:]])


def main() -> None:
    """Rewrite every page."""
    for page in sorted(HERE.glob("*.md")):
        page.write_text(rewritten(page), encoding="utf-8")


if __name__ == "__main__":
    main()
