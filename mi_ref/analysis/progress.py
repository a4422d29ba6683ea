"""A bar for what takes a while: on stderr, only in a terminal, and gone at the end."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TypeVar

T = TypeVar("T")


def tracked(items: Sequence[T], what: str) -> Iterable[T]:
    """Yield `items` with a bar that is called `what`."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, console=console, transient=True, disable=not sys.stderr.isatty())
