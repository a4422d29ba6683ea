"""Experiments in files: edits as JSON, with their arrays in a safetensors file beside it.

``save_edits("steer.json", edits)`` writes ``steer.json`` and, if any edit holds an array,
``steer.safetensors``. The JSON holds the SHA-256 of the arrays, so that two files that do not
belong together are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_ref.backend import Backend, get_backend
from mi_ref.edits.records import edit_of, edit_record, selector_of, selector_record
from mi_ref.errors import ArgumentError, HookError
from mi_ref.hooks.capture import Edit, Edits
from mi_ref.hooks.selectors import Selector
from mi_ref.output.files import json_text, write_whole

FORMAT = "mi_ref.edits/1"


def save_edits(
    path: str | os.PathLike[str], edits: Edits, *, backend: Backend | str | None = None
) -> None:
    """Write edits, in their order: whole or not at all.

    Parameters
    ----------
    path : str or path
        A ``.json`` file to write; arrays go beside it.
    edits : mapping or sequence of (selector, edit)
        As for `Model.run`: interventions of :mod:`mi_ref.do`, or arrays.
    backend : Backend, str or None
        The one that the arrays belong to; None if they are in main memory.

    Raises
    ------
    HookError
        If an edit or a selector is a function, which a file cannot hold, or of an unknown kind.
    ArgumentError
        If `path` does not end in ``.json``, or a value is neither an array nor numbers.
    """
    final = _json_path(path)
    to_host = None if backend is None else get_backend(backend).to_host
    arrays: dict[str, Any] = {}

    def keep(array: Any) -> str:
        name = f"array.{len(arrays)}"
        arrays[name] = _on_host(array, to_host)
        return name

    pairs = edits.items() if isinstance(edits, Mapping) else edits
    listed = [
        {"selector": selector_record(selector), "edit": edit_record(edit, keep)}
        for selector, edit in pairs
    ]
    packed = _packed(arrays)
    text = json_text({
        "format": FORMAT,
        "arrays_sha256": None if packed is None else hashlib.sha256(packed).hexdigest(),
        "edits": listed,
    })  # fmt: skip

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")
        if packed is not None:
            write_whole(final.with_suffix(".safetensors"), lambda file: file.write_bytes(packed))

    write_whole(final, write)


def load_edits(
    path: str | os.PathLike[str], backend: Backend | str | None = None
) -> list[tuple[Selector, Edit]]:
    """Read edits, ready for ``model.run(..., edits=…)``.

    Parameters
    ----------
    path : str or path
        The ``.json`` file.
    backend : Backend, str or None
        The one that gets the arrays, ``model.backend``; None for arrays in main memory, which
        interventions take too.

    Returns
    -------
    list of (selector, edit)
        In the order saved. The name of one point is read as that point.

    Raises
    ------
    HookError
        If the file is damaged, of another format, or was saved with other arrays.
    """
    final = _json_path(path)
    record = _read(final)
    arrays = _arrays(final, record.get("arrays_sha256"))
    if backend is not None:
        from_host = get_backend(backend).from_host
        arrays = {name: from_host(array) for name, array in arrays.items()}
    listed = record.get("edits")
    if not isinstance(listed, list):
        raise HookError(f"{final} is damaged: it has no list of edits.")
    try:
        return [
            (selector_of(entry["selector"]), edit_of(entry["edit"], arrays)) for entry in listed
        ]
    except HookError as error:
        raise HookError(f"{final}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HookError(f"{final} is damaged: {type(error).__name__}: {error}.") from error


def _json_path(path: str | os.PathLike[str]) -> Path:
    final = Path(path)
    if final.suffix != ".json":
        raise ArgumentError(
            f"{final}: expected a .json file; the arrays go into a .safetensors file beside it."
        )
    return final


def _on_host(array: Any, to_host: Any) -> Any:
    # The NumPy backend is asked: the core imports no array library.
    try:
        own = get_backend("numpy").from_host(array if to_host is None else to_host(array))
    except TypeError as error:
        raise HookError(
            f"a {type(array).__name__} cannot be read without its backend: {error}. Pass it:"
            " save_edits(path, edits, backend=model.backend)."
        ) from None
    return own.copy(order="C")


def _packed(arrays: dict[str, Any]) -> bytes | None:
    from safetensors.numpy import save

    return bytes(save(arrays, metadata={"format": FORMAT})) if arrays else None


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HookError(f"{path} cannot be read as edits: {error}.") from error
    found = record.get("format") if isinstance(record, dict) else None
    if found != FORMAT:
        raise HookError(f"{path} is not a file of edits: expected {FORMAT!r}, got {found!r}.")
    return dict(record)


def _arrays(path: Path, digest: str | None) -> dict[str, Any]:
    """Return the arrays beside a JSON file that names their digest."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if digest is None:
        return {}
    beside = path.with_suffix(".safetensors")
    try:
        packed = beside.read_bytes()
        if hashlib.sha256(packed).hexdigest() != digest:
            raise HookError(f"{beside} was not saved with {path.name}: save both again.")
        return dict(load(packed))
    except (OSError, SafetensorError) as error:
        raise HookError(f"{beside}, the arrays of {path.name}, cannot be read: {error}.") from error
