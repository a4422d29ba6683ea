"""The rooms of the package in their order, and who imports whom, read off the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mi_ref"


@cache
def rooms() -> tuple[str, ...]:
    """Return the rooms, each of which imports only those before it, as CONTRIBUTING.md lists them.

    A room is a folder, ``"hooks/"``, or a file, ``"model.py"``, below ``mi_ref/``.
    """
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Rooms\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.+?`) \|", table, re.MULTILINE)
    return tuple(name for row in rows for name in re.findall(r"`([\w/.]+)`", row))


def room_of(path: Path) -> int:
    """Return the place of a file's room in the list: the longest entry that holds the file."""
    name = path.relative_to(PACKAGE).as_posix()
    fitting = [room for room in rooms() if name == room or name.startswith(room)]
    assert fitting, f"mi_ref/{name} is in no room: add its room to the table in CONTRIBUTING.md."
    return rooms().index(max(fitting, key=len))


def imports_of(path: Path) -> Iterator[Path]:
    """Yield the files of the package that a file imports anywhere, for type checkers too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            found = file_of(name)
            if found is not None and found != path:
                yield found


def file_of(name: str) -> Path | None:
    """Return the file behind a dotted name, or behind what it is taken from."""
    if name.partition(".")[0] != "mi_ref":
        return None
    for dotted in (name, name.rpartition(".")[0]):
        base = ROOT.joinpath(*dotted.split("."))
        for path in (base.with_suffix(".py"), base / "__init__.py"):
            if path.is_file():
                return path
    return None


def circles(graph: Mapping[Path, set[Path]]) -> list[set[Path]]:
    """Return the groups of files that import each other in a circle (Tarjan's algorithm)."""
    index: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[set[Path]] = []

    def visit(node: Path) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph[node]:
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group: set[Path] = set()
            while node not in group:
                group.add(stack.pop())
            if len(group) > 1:
                found.append(group)

    for node in graph:
        if node not in index:
            visit(node)
    return found
