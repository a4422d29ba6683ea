"""What every analysis returns: a value that prints, plots, saves itself and shows in notebooks."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from mi_ref.output.codec import encode, whole_numbers_in
from mi_ref.output.files import write_json
from mi_ref.output.origin import Origin
from mi_ref.output.tables import Table


class Result(ABC):
    """Base of results; a subclass says what its table, its record and its picture hold."""

    __slots__ = ()

    @abstractmethod
    def table(self) -> Table:
        """Return the table that printing shows."""

    @abstractmethod
    def record(self) -> dict[str, Any]:
        """Return everything, ready for JSON, with what it takes to repeat it."""

    def summary(self) -> str:
        """Return what it shows in a sentence or two; empty if only the table can say it."""
        return ""

    def plot(self, path: str | os.PathLike[str]) -> None:
        """Draw it into a ``.png``, ``.svg`` or ``.pdf`` file; needs ``mi_ref[plot]``."""
        raise NotImplementedError(f"{type(self).__name__} has no picture; it prints and saves.")

    def print(self) -> None:
        """Print the table."""
        self.table().print()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write `record` as JSON: whole or not at all."""
        write_json(path, self.record())

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        return f"<{type(self).__name__}; print() shows it>"

    def _repr_html_(self) -> str:
        return self.table().html()


def record_of(
    result: Result,
    kind: str,
    tokens: Sequence[int] | Sequence[Sequence[int]] = (),
    *,
    seed: int | None = None,
    **content: Any,
) -> dict[str, Any]:
    """Return a record: its format, where it comes from, the tokens as ids and text, its content.

    Parameters
    ----------
    result : Result
        A dataclass whose field `origin` says which model computed it.
    kind : str
        The record's format is ``"mi_ref.<kind>/1"``.
    tokens : sequence of int, or of such
        The tokens of the prompt or prompts.
    seed : int or None
        The seed of any randomness that took part.
    **content
        What was found, in plain data.
    """
    origin: Origin = result.origin  # type: ignore[attr-defined]  # a field of every result
    rows = [list(row) if isinstance(row, Sequence) else row for row in tokens]
    return {
        "format": f"mi_ref.{kind}/1",
        "provenance": origin.record(seed=seed),
        "tokens": rows,
        "str_tokens": [
            [origin.token_string(n) for n in row]
            if isinstance(row, list)
            else origin.token_string(row)
            for row in rows
        ],
        **content,
        "value": encoded(result),
    }


def encoded(result: Result) -> dict[str, Any]:
    """Return every field, and the texts of all tokens: what `mi_ref.load_result` reads."""
    value: dict[str, Any] = encode(result)
    origin: Origin = result.origin  # type: ignore[attr-defined]  # a field of every result
    # Whichever of these numbers are tokens, their texts are there to be shown.
    numbers = {n for n in whole_numbers_in(value["fields"]) if 0 <= n < origin.d_vocab}
    value["fields"]["origin"]["origin"]["tokens"] = {
        str(n): origin.token_string(n) for n in sorted(numbers)
    }
    return value
