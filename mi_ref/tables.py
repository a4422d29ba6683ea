"""Tables for terminals, files and notebooks, drawn by rich."""

from __future__ import annotations

import html
from collections.abc import Sequence
from io import StringIO
from typing import Any


class Table:
    """Rows of text under headings.

    Parameters
    ----------
    headings : sequence of str
        One per column. A heading that starts with ``>`` makes its column flush right.
    title : str
        A line above the table; empty for none.
    """

    def __init__(self, headings: Sequence[str], title: str = "") -> None:
        self._headings = list(headings)
        self._title = title
        self._rows: list[tuple[str, ...]] = []
        self._styles: list[str] = []

    def add(self, *cells: object, style: str = "") -> None:
        """Add a row; `style` is a rich style for it, such as ``"bold green"``."""
        self._rows.append(tuple(map(str, cells)))
        self._styles.append(style)

    def print(self) -> None:
        """Print in colour, fitted to the terminal; plain if standard output is no terminal."""
        from rich.console import Console

        Console(highlight=False).print(self._rich())

    def __str__(self) -> str:
        from rich.console import Console

        # Wide enough never to wrap: a string has no terminal to fit.
        console = Console(file=StringIO(), width=1000, color_system=None, highlight=False)
        with console.capture() as captured:
            console.print(self._rich())
        return "\n".join(line.rstrip() for line in captured.get().splitlines())

    def html(self) -> str:
        """Return an HTML table, for notebooks."""
        heads = "".join(f"<th>{html.escape(text.lstrip('>'))}</th>" for text in self._headings)
        rows = "".join(
            "<tr>" + "".join(f"<td><code>{html.escape(cell)}</code></td>" for cell in row) + "</tr>"
            for row in self._rows
        )
        caption = f"<caption>{html.escape(self._title)}</caption>" if self._title else ""
        return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def _rich(self) -> Any:
        from rich import box
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            title=Text(self._title, style="bold") if self._title else None,
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            header_style="bold",
        )
        for heading in self._headings:
            right = heading.startswith(">")
            table.add_column(Text(heading.lstrip(">")), justify="right" if right else "left")
        for row, style in zip(self._rows, self._styles, strict=True):
            # Text, not markup: a token may well contain square brackets.
            table.add_row(*(Text(cell) for cell in row), style=style)
        return table
