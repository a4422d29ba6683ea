"""Tables as text: never cut; a grid too wide for a terminal becomes several tables."""

from __future__ import annotations

from mi_ref.output.tables import Styled, Table


def grid(n_columns: int) -> Table:
    table = Table([">layer", *(f">{n} ' token'" for n in range(n_columns))], "a grid")
    for layer in range(2):
        table.add(layer, *(Styled((f"{layer}.{n:03d}", "bold")) for n in range(n_columns)))
    return table


def test_a_string_holds_every_column_whole() -> None:
    lines = str(grid(150)).splitlines()
    assert len(lines) == 6
    assert lines[-1].split() == ["1", *(f"1.{n:03d}" for n in range(150))]


def test_a_wide_grid_is_split_into_tables_that_fit() -> None:
    parts = list(map(str, grid(20).split(60)))
    assert len(parts) == 5
    assert [part.startswith("a grid") for part in parts] == [True, False, False, False, False]
    for part in parts:
        assert max(map(len, part.splitlines())) <= 60
    rows = [part.splitlines()[-1].split() for part in parts]
    assert {row[0] for row in rows} == {"1"}
    assert [cell for row in rows for cell in row[1:]] == [f"1.{n:03d}" for n in range(20)]


def test_a_column_wider_than_the_terminal_stands_alone() -> None:
    assert len(grid(3).split(5)) == 3
