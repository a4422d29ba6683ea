"""Tables for terminals, files and notebooks, drawn by rich."""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from io import StringIO
from typing import Any


class Styled:
    """Styled text in parts. Where a terminal is too narrow, whole parts give way, last first.

    Parameters
    ----------
    *parts : (text, style)
        In rich's words for styles: ``("' Paris'", "bold green")``; an empty style is plain.
    """

    __slots__ = ("parts",)

    def __init__(self, *parts: tuple[str, str]) -> None:
        self.parts = parts

    def __str__(self) -> str:
        return "  ".join(text for text, _ in self.parts)

    def html(self) -> str:
        """Return the text as HTML, coloured."""
        from rich.style import Style

        return "&ensp;".join(
            f'<span style="{Style.parse(style).get_html_style()}">{html.escape(text)}</span>'
            for text, style in self.parts
        )

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        from rich.measure import Measurement

        widest = self._text(options.max_width).cell_len
        return Measurement(self._text(0).cell_len, widest)

    def __rich_console__(self, console: Any, options: Any) -> Iterator[Any]:
        yield self._text(options.max_width)

    def _text(self, width: int) -> Any:
        """Return as many parts as fit into `width`, at least the first."""
        from rich.text import Text

        line = Text(no_wrap=True, overflow="ellipsis")
        for text, style in self.parts:
            part = Text(text, style)
            if line and line.cell_len + 2 + part.cell_len > width:
                break
            line.append("  " if line else "").append_text(part)
        return line


class Lines(Styled):
    """Parts one under the other, each wrapped where it is too long; empty ones are left out."""

    __slots__ = ()

    def __str__(self) -> str:
        return "\n".join(text for text, _ in self.parts if text)

    def __rich_measure__(self, console: Any, options: Any) -> Any:
        from rich.measure import Measurement

        return Measurement.get(console, options, self._text(0))

    def _text(self, width: int) -> Any:
        from rich.text import Text

        return Text("\n").join(Text(text, style) for text, style in self.parts if text)


class Table:
    """Rows of text under headings.

    Parameters
    ----------
    headings : sequence of str
        One per column. A heading that starts with ``>`` makes its column flush right.
    title : str
        A line above the table; empty for none.
    flexible : collection of str
        Headings of the columns that give way in a narrow terminal; empty for all.
    widest : int or None
        Columns of text beyond which flexible columns wrap anywhere.
    """

    def __init__(
        self,
        headings: Sequence[str],
        title: str = "",
        *,
        flexible: Collection[str] = (),
        widest: int | None = None,
    ) -> None:
        self._headings = list(headings)
        self._title = title
        self._flexible = frozenset(flexible)
        self._widest = widest
        self._rows: list[tuple[str | Styled, ...]] = []
        self._styles: list[str] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, *cells: object, style: str = "") -> None:
        """Add a row of cells or anything that prints; `style` is a rich style for all of it."""
        self._rows.append(tuple(cell if isinstance(cell, Styled) else str(cell) for cell in cells))
        self._styles.append(style)

    def matching(self, pattern: str) -> Table:
        """Return the rows that a regular expression is found in, whatever the case."""
        found = Table(self._headings, self._title, flexible=self._flexible, widest=self._widest)
        for row, style in zip(self._rows, self._styles, strict=True):
            if any(re.search(pattern, str(cell), re.IGNORECASE) for cell in row):
                found.add(*row, style=style)
        return found

    def folded(self, columns: Sequence[Sequence[str]]) -> Table:
        """Return a narrower table, of which each column stacks several of this one's.

        Parameters
        ----------
        columns : sequence of sequence of str
            Headings of this table that go together, the first one on top.
        """
        folded = Table([", ".join(group) for group in columns])
        names = [heading.lstrip(">") for heading in self._headings]
        for row, style in zip(self._rows, self._styles, strict=True):
            held = dict(zip(names, map(str, row), strict=True))
            stacks = (
                Lines((held[top], "bold"), *((held[name], "dim") for name in below))
                for top, *below in columns
            )
            folded.add(*stacks, style=style)
        return folded

    def split(self, width: int) -> list[Table]:
        """Return tables of `width` letters at most, if a column allows, each with the first one."""
        names = [heading.lstrip(">") for heading in self._headings]
        columns = zip(names, *self._rows, strict=True)
        # Two spaces before each column, one before the first.
        first, *sizes = (max(len(str(cell)) for cell in column) + 2 for column in columns)
        groups, taken = list[list[int]](), width
        for n, size in enumerate(sizes, start=1):
            if taken + size > width:
                groups, taken = [*groups, []], first - 1
            groups[-1].append(n)
            taken += size
        parts = []
        for number, group in enumerate(groups):
            chosen = [0, *group]
            part = Table([self._headings[n] for n in chosen], "" if number else self._title)
            for row, style in zip(self._rows, self._styles, strict=True):
                part.add(*(row[n] for n in chosen), style=style)
            parts.append(part)
        return parts

    def print(self, *, narrow: Sequence[Sequence[str]] = ()) -> None:
        """Print: fitted and coloured in a terminal or notebook, else as plain as `str`.

        Parameters
        ----------
        narrow : sequence of sequence of str
            How to fold it where the terminal is too narrow; see `folded`. Empty for not at all.
        """
        from rich.console import Console

        console = Console(highlight=False)
        if not (console.is_terminal or console.is_jupyter):
            unicode = (sys.stdout.encoding or "utf-8").lower().startswith("utf")
            sys.stdout.write(f"{self}\n" if unicode else f"{self}\n".replace("─", "-"))
            return
        full = max(map(len, str(self).splitlines()), default=0)
        if full > console.width and narrow:
            console.print(self.folded(narrow))
        elif full > console.width and all(name.startswith(">") for name in self._headings[1:]):
            # Numbers would be cut to their first digits.
            for part in self.split(console.width):
                console.print(part)
        else:
            console.print(self)

    def __str__(self) -> str:
        from rich.console import Console

        # Wide enough never to wrap: a string has no terminal to fit.
        console = Console(file=StringIO(), width=100_000, color_system=None, highlight=False)
        with console.capture() as captured:
            console.print(self)
        return "\n".join(line.rstrip() for line in captured.get().splitlines()).strip("\n")

    def html(self) -> str:
        """Return an HTML table, for notebooks."""
        heads = "".join(f"<th>{html.escape(text.lstrip('>'))}</th>" for text in self._headings)
        rows = "".join(
            "<tr>" + "".join(f"<td><code>{_cell_html(cell)}</code></td>" for cell in row) + "</tr>"
            for row in self._rows
        )
        caption = f"<caption>{html.escape(self._title)}</caption>" if self._title else ""
        return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"

    def __rich__(self) -> Any:
        from rich import box
        from rich.console import Group
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
            header_style="bold",
        )
        for heading in self._headings:
            name = heading.lstrip(">")
            table.add_column(
                Text(name),
                justify="right" if heading.startswith(">") else "left",
                no_wrap=bool(self._flexible) and name not in self._flexible,
                max_width=self._widest if name in self._flexible else None,
            )
        for row, style in zip(self._rows, self._styles, strict=True):
            # Text, not markup: a token may well contain square brackets.
            cells = (cell if isinstance(cell, Styled) else Text(cell) for cell in row)
            table.add_row(*cells, style=style)
        # Above it, not its own: a table would wrap its title at its own width.
        return Group(Text(self._title, style="bold"), table) if self._title else table


def fixed(value: float, digits: int, sign: str = "") -> str:
    """Return a number with some digits after the point, of which none is minus zero."""
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}"


def _cell_html(cell: str | Styled) -> str:
    return cell.html() if isinstance(cell, Styled) else html.escape(cell)


def chance(probability: float) -> str:
    """Return a probability, or a divergence, in four to six characters, however small.

    Below 1e-12 it is rounding, whose digits differ from machine to machine.
    """
    if 0 < abs(probability) < 1e-12:
        return "<1e-12"
    if probability >= 0.0005 or probability == 0:
        return f"{probability:.3f}"
    return f"{probability:.0e}"
