"""Pairs of prompts in a JSON file.

It holds a list of objects like

::

    {"prompt": "The capital of France is", "counterfactual": "The capital of Italy is",
     "subject": "France", "answer": " Paris", "other": " Rome"}

The first two keys are needed. A prompt is text or a list of token ids, a subject text or a list of
positions, an answer the text of exactly one token, space included, or an id;
:class:`mi_ref.analysis.facts.pairs.FactPair` says what they mean and what happens without them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mi_ref.analysis.facts.pairs import FactPair
from mi_ref.errors import PairsError

_TEXT, _LIST, _NUMBER = "text", "a list of whole numbers", "a whole number"
_KINDS = {
    "prompt": (_TEXT, _LIST),
    "counterfactual": (_TEXT, _LIST),
    "subject": (_TEXT, _LIST),
    "answer": (_TEXT, _NUMBER),
    "other": (_TEXT, _NUMBER),
}
_NEEDED = ("prompt", "counterfactual")


def read_fact_pairs(path: str | os.PathLike[str]) -> tuple[FactPair, ...]:
    """Read the pairs of a file; see the module for its format.

    Raises
    ------
    PairsError
        If the file is no JSON list of such objects: with every fault of every entry, by number.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_Entry)
    except ValueError as error:
        raise PairsError(f"{os.fspath(path)} is no JSON: {error}.") from error
    if not isinstance(entries, list) or not entries:
        raise PairsError(
            f"{os.fspath(path)} holds no list of pairs: write"
            ' [{"prompt": ..., "counterfactual": ...}, ...].'
        )
    faults = [f"  {n}: {fault}" for n, entry in enumerate(entries) for fault in _faults(entry)]
    if faults:
        listed = "\n".join(faults)
        raise PairsError(f"{os.fspath(path)} has faults in its pairs, from 0:\n{listed}")
    return tuple(FactPair(**dict(entry.items)) for entry in entries)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A JSON object as it stands in the file: a dict would drop a key that comes twice."""

    items: list[tuple[str, Any]]

    def __repr__(self) -> str:
        return repr(dict(self.items))


def _faults(entry: Any) -> Iterator[str]:
    if not isinstance(entry, _Entry):
        yield f"{entry!r} is not an object"
        return
    keys = [key for key, _ in entry.items]
    for key in dict.fromkeys(keys):
        if key not in _KINDS:
            yield f"unknown key {key!r}; there are {', '.join(_KINDS)}"
        elif keys.count(key) > 1:
            yield f"{key!r} stands there {keys.count(key)} times"
    yield from (f"{key!r} is missing" for key in _NEEDED if key not in keys)
    for key, value in entry.items:
        if key in _KINDS and _kind(value) not in _KINDS[key]:
            yield f"{key!r} is {value!r}; it is {' or '.join(_KINDS[key])}"


def _kind(value: Any) -> str | None:
    """Return which of the kinds a value is; an empty text or list is none."""
    if isinstance(value, str):
        return _TEXT if value else None
    if isinstance(value, list):
        return _LIST if value and all(_kind(n) == _NUMBER for n in value) else None
    return _NUMBER if isinstance(value, int) and not isinstance(value, bool) else None
