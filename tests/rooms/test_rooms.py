"""Every file has a room, and a room imports only the rooms before it; no circle is left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rooms.imports import PACKAGE, ROOT, circles, imports_of, room_of, rooms

FILES = sorted(PACKAGE.rglob("*.py"))
CODE = ("mi_ref", "backends", "tests", "golden", "bench", "examples", "docs")


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_the_list_of_rooms_is_read() -> None:
    assert len(rooms()) > 20
    assert rooms()[0] == "_typing.py"
    assert all((PACKAGE / room).exists() for room in rooms())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_room_imports_only_the_rooms_before_it(path: Path) -> None:
    if path == PACKAGE / "__init__.py":
        return
    own = room_of(path)
    assert [name(other) for other in imports_of(path) if room_of(other) > own] == []


def test_no_circle_of_imports_is_left() -> None:
    graph = {path: set(imports_of(path)) for path in FILES}
    assert [sorted(map(name, circle)) for circle in circles(graph)] == []


def test_a_circle_would_be_found() -> None:
    a, b, c = (PACKAGE / letter for letter in "abc")
    assert circles({a: {b}, b: {c}, c: {b}}) == [{b, c}]


def test_no_folder_of_code_is_crowded() -> None:
    counts: dict[str, int] = {}
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            counts[name(path.parent)] = counts.get(name(path.parent), 0) + 1
    assert {folder: count for folder, count in counts.items() if count > 25} == {}


@pytest.mark.parametrize("room", [room for room in rooms() if room.endswith("/")])
def test_a_room_says_what_it_holds(room: str) -> None:
    assert (PACKAGE / room / "__init__.py").read_text("utf-8").startswith('"""')
