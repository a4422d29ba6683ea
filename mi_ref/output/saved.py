"""Results read back from the files that `save` writes."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import re
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mi_ref.errors import ArgumentError, MiRefError
from mi_ref.output.codec import decode
from mi_ref.output.files import json_text
from mi_ref.output.result import Result

_FAULTS = (TypeError, ValueError, LookupError, AttributeError, RecursionError)
"""What values of other kinds than a result's raise on the way."""
# Where the dataclasses stand that results are made of.
_ROOMS = ("mi_ref.analysis", "mi_ref.edits", "mi_ref.config", "mi_ref.state")
_FILES = ("mi_ref.run", "mi_ref.text.padding", "mi_ref.hooks.capture", "mi_ref.text.spans")


def load_result(path: str | os.PathLike[str]) -> Any:
    """Return the result that ``result.save(path)`` wrote.

    It prints, draws and saves as it did then. It knows its model by name and hash, and the texts of
    its own tokens, but holds no weights; arrays are NumPy's, whatever computed them.

    Parameters
    ----------
    path : str or path
        A JSON file that a result wrote.

    Raises
    ------
    ArgumentError
        If it is not such a file, is damaged, or has a format of another version.

    Examples
    --------
    >>> import mi_ref, tempfile, os
    >>> model = mi_ref.from_pretrained("atlas")
    >>> lens = mi_ref.analysis.logit_lens(model, "The capital of France is", target=" Paris")
    >>> path = os.path.join(tempfile.mkdtemp(), "lens.json")
    >>> lens.save(path)
    >>> str(mi_ref.load_result(path)) == str(lens)
    True
    """
    name = os.fspath(path)
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{name!r} cannot be read as a result: {error}") from error
    named = record.get("format") if isinstance(record, dict) else None
    match = re.fullmatch(r"mi_ref\.\w+/(\d+)", named) if isinstance(named, str) else None
    if match is None:
        raise ArgumentError(
            f"{name!r}: expected a file that a result's save() wrote, got the format {named!r}."
        )
    if match[1] != "1":
        raise ArgumentError(
            f"{name!r} has the format {named!r}; this version of mi_ref reads version 1. Read it"
            ' with the version that wrote it, named under "provenance".'
        )
    if "value" not in record:
        raise ArgumentError(
            f'{name!r}: a file of the format {named!r} without a "value" cannot be loaded as a'
            " result. Edits, states and AlgZoo's reports have none, nor have results of older"
            " versions: mi_ref.load_edits and State.load read the first two, and any reader of"
            " JSON the others."
        )
    return _read(name, record)


def _read(name: str, record: dict[str, Any]) -> Result:
    """Return the result of a record, which must say again what the record says."""
    try:
        found = decode(record["value"], _known())
        same = isinstance(found, Result) and json.loads(json_text(found.record())) == record
    except (
        MiRefError,
        TypeError,
        ValueError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise ArgumentError(f"{name!r} is damaged: {error}. Save the result again.") from error
    if not same:
        raise ArgumentError(
            f"{name!r} is damaged: its record and its value are not of one result. Save the result"
            " again."
        )
    assert isinstance(found, Result)
    return found


def modules() -> list[str]:
    """Return the modules whose dataclasses a result may hold."""
    names = list(_FILES)
    for room in _ROOMS:
        package = importlib.import_module(room)
        names += [info.name for info in pkgutil.walk_packages(package.__path__, f"{room}.")]
    return names


@cache
def _known() -> dict[str, type]:
    """Return every dataclass that a result may hold, by name; a test says that none has two."""
    return {kind.__name__: kind for name in modules() for kind in dataclasses_of(name)}


def dataclasses_of(module: str) -> list[type]:
    """Return the dataclasses that a module defines."""
    values = vars(importlib.import_module(module)).values()
    kinds = [value for value in values if isinstance(value, type) and is_dataclass(value)]
    return [kind for kind in kinds if kind.__module__ == module]
