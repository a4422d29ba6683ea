"""A bar for what takes a while: on stderr, only in a terminal, and gone at the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def tracked(items: Iterable[T], what: str, total: int | None = None) -> Iterable[T]:
    """Yield `items` with a bar that is called `what`; `total` of them, if they have no length."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if not console.is_terminal:
        # Not left to `track`: rich before 14.3 ends even a hidden bar with an empty line.
        return items
    return track(items, what, total, console=console, transient=True)
