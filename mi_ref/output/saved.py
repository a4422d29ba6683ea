"""Results read back from the files that `save` writes."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
from dataclasses import is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mi_ref.errors import ArgumentError, MiRefError
from mi_ref.output.codec import decode
from mi_ref.output.result import Result

# Where the dataclasses stand that results are made of.
_ROOMS = ("mi_ref.analysis", "mi_ref.algzoo", "mi_ref.edits", "mi_ref.config", "mi_ref.state")
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
    try:
        record = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArgumentError(f"{os.fspath(path)!r} cannot be read as a result: {error}") from error
    named = record.get("format") if isinstance(record, dict) else None
    if not isinstance(named, str) or not named.startswith("mi_ref.") or "value" not in record:
        raise ArgumentError(
            f"{os.fspath(path)!r}: expected a file that a result's save() wrote, got the format"
            f" {named!r}. Files of other things have readers of their own: mi_ref.load_edits,"
            " State.load."
        )
    if not named.endswith("/1"):
        raise ArgumentError(
            f"{os.fspath(path)!r} has the format {named!r}; this version of mi_ref reads version 1."
            ' Read it with the version that wrote it, named under "provenance".'
        )
    try:
        found = decode(record["value"], _known())
    except (MiRefError, TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise ArgumentError(f"{os.fspath(path)!r} is damaged: {error}") from error
    if not isinstance(found, Result):
        raise ArgumentError(f"{os.fspath(path)!r} is damaged: it holds no result.")
    return found


@cache
def _known() -> dict[str, type]:
    """Return every dataclass that a result may hold, by name."""
    names = list(_FILES)
    for room in _ROOMS:
        package = importlib.import_module(room)
        names += [info.name for info in pkgutil.walk_packages(package.__path__, f"{room}.")]
    modules = [importlib.import_module(name) for name in names]
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    }
