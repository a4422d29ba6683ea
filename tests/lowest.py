"""Print the lowest versions that pyproject.toml allows, as requirements for pip.

``make test-lowest`` installs them: what the library needs, what its options need in the tests, and
what runs the tests. Linters are left out.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

LINTERS = {"mypy", "ruff"}


def lowest(requirements: list[str]) -> list[str]:
    """Return each requirement at exactly its lower bound."""
    bounds = [each.split(">=") for each in requirements]
    return [f"{name}=={bound}" for name, bound in bounds if name not in LINTERS]


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8"))
    needed = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    sys.stdout.write("\n".join(lowest(needed)) + "\n")
