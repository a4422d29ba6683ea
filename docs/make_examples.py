"""Write examples/README.md: every example, the question it answers, and its output.

Runs each script in its own process, without a network; scripts that name a checkpoint of the Hub
get the bundled model instead. Times in the output are those of this run::

    python docs/make_examples.py
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"
ARGUMENTS = {"fast_download": ("--model", "atlas")}
HEAD = """\
# Examples

Each script is at most a page long and runs offline on a bundled model in a second or two, from the
repository's folder: `python examples/NAME.py`. All take `--model NAME`, a checkpoint from a folder
or the Hub (for AlgZoo, one of its networks), and those that draw take `--plot FILE`; `--help` lists
the rest. `python docs/make_examples.py` writes this page.
"""


def scripts() -> list[Path]:
    """Return every example, by name."""
    return sorted(EXAMPLES.glob("*.py"))


def first_line(path: Path) -> str:
    """Return the first line of a script's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()[0]


def output(path: Path) -> str:
    """Run a script and return its output, with one name for all temporary folders."""
    command = [sys.executable, str(path), *ARGUMENTS.get(path.stem, ())]
    own = {"HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        command, cwd=EXAMPLES.parent, env=os.environ | own, capture_output=True, encoding="utf-8",
        check=True,
    )  # fmt: skip
    return re.sub(r"\S*[/\\]tmp\w{8}\b", "FOLDER", done.stdout).strip("\n")


def main() -> None:
    """Write the page."""
    rows = [f"| [{path.name}]({path.name}) | {first_line(path)} |" for path in scripts()]
    parts = [HEAD, "| script | |\n|---|---|\n" + "\n".join(rows) + "\n"]
    parts += [f"## {path.name}\n\n```\n{output(path)}\n```\n" for path in scripts()]
    (EXAMPLES / "README.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
