"""Saved results: strict JSON, and files written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def write_json(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Write a record as JSON, whole or not at all; see `json_text`."""
    text = json_text(record)
    write_whole(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))


def json_text(record: Mapping[str, Any]) -> str:
    """Return a record as strict JSON.

    Strict JSON has no numbers beyond the finite: those are written as the strings ``"Infinity"``,
    ``"-Infinity"`` and ``"NaN"``, which Python's ``float`` reads back.
    """
    return json.dumps(_strict(record), ensure_ascii=False, indent=1, allow_nan=False) + "\n"


def write_whole(path: str | os.PathLike[str], write: Callable[[Path], object]) -> None:
    """Have `write` fill a temporary file beside `path`, and put that in its place if it succeeds.

    Parameters
    ----------
    path : str or path
        The file to make or replace.
    write : callable
        Is given the temporary file.
    """
    final = Path(path)
    with tempfile.TemporaryDirectory(dir=final.parent, prefix=".mi_ref-") as folder:
        temporary = Path(folder, final.name)
        write(temporary)
        temporary.replace(final)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value
