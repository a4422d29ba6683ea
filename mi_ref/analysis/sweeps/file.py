"""Finished cells of a sweep on disk: JSON lines, from which an interrupted sweep goes on.

The first line says which sweep it is; each other line holds one cell's numbers, in order. A line
that was cut short when a sweep was killed is computed anew.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from mi_ref.analysis.measure.metrics import Metric
from mi_ref.analysis.sweeps.cells import ResolvedCell
from mi_ref.backend import Backend
from mi_ref.edits.intervention import Intervention
from mi_ref.errors import SweepError
from mi_ref.hooks.capture import Edit
from mi_ref.model import Model

_FORMAT = "mi_ref.sweep_cells/1"


def identity(
    model: Model,
    tokens: tuple[int, ...],
    cells: Sequence[ResolvedCell],
    metrics: Sequence[Metric],
    position: int,
) -> dict[str, Any]:
    """Return what makes a sweep this one: model, prompt, cells, metrics; ready for JSON.

    Raises
    ------
    SweepError
        If a cell holds a function, which has no content to compare.
    """
    return {
        "model": model.origin.name,
        "weights_sha256": model.origin.weights.sha256(),
        "compat": model.cfg.compat,
        "backend": model.backend.name,
        "dtype": str(model.dtype).rpartition(".")[2],
        "tokens": list(tokens),
        "position": position,
        "metrics": [metric.record() for metric in metrics],
        "n_cells": len(cells),
        "cells_sha256": _digest(cells, model.backend),
    }


class SweepFile:
    """The file of one sweep.

    Parameters
    ----------
    path : str or path
        Made if it does not exist.
    known : mapping
        `identity` of the sweep.

    Raises
    ------
    SweepError
        If it holds something else, or is damaged otherwise than at its end.
    """

    def __init__(self, path: str | os.PathLike[str], known: dict[str, Any]) -> None:
        self._path = Path(path)
        self._known = known
        header = _line({"format": _FORMAT, **known})
        held = self._path.read_bytes() if self._path.exists() else b""
        if b"\n" not in held:
            if not header.encode().startswith(held):
                raise SweepError(
                    f"{self._path} is not a sweep's file. Pass another path as resume=."
                )
            self._path.write_bytes(header.encode())
            held = header.encode()
        whole = held[: held.rindex(b"\n") + 1]
        self._check_header(whole.split(b"\n", 1)[0])
        self.values = [self._read(n, text) for n, text in enumerate(whole.splitlines()[1:])]
        if len(whole) < len(held):
            with self._path.open("r+b") as file:
                file.truncate(len(whole))

    def append(self, start: int, values: Sequence[tuple[float, ...]]) -> None:
        """Write the numbers of successive cells, the first of which is number `start`."""
        lines = [
            _line({"cell": start + n, "values": [_strict(value) for value in row]})
            for n, row in enumerate(values)
        ]
        with self._path.open("ab") as file:
            file.write("".join(lines).encode())

    def _check_header(self, text: bytes) -> None:
        found = _parsed(text)
        if found.get("format") != _FORMAT:
            raise SweepError(f"{self._path} is not a sweep's file. Pass another path as resume=.")
        wanted = json.loads(_line(self._known))
        differing = [key for key, value in wanted.items() if found.get(key) != value]
        if differing:
            shown = "; ".join(
                f"{key} {found.get(key)!r}, here {wanted[key]!r}"
                if key not in ("metrics", "cells_sha256")
                else key
                for key in differing
            )
            raise SweepError(
                f"{self._path} belongs to another sweep, which differs in {shown}. Name another"
                " file for resume=."
            )

    def _read(self, number: int, text: bytes) -> tuple[float, ...]:
        found = _parsed(text)
        values = found.get("values")
        whole = isinstance(values, list) and len(values) == len(self._known["metrics"])
        if found.get("cell") != number or not whole or number >= self._known["n_cells"]:
            raise SweepError(
                f"{self._path}, line {number + 2}: {text.decode(errors='replace')[:80]!r} is not"
                f" cell {number} with {len(self._known['metrics'])} numbers. The file is damaged:"
                " delete it, or its lines from there on."
            )
        assert isinstance(values, list)
        return tuple(map(float, values))


def _parsed(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def _strict(value: float) -> float | str:
    """Return a number that strict JSON has, or the word that ``float`` reads back."""
    return value if math.isfinite(value) else json.dumps(value)


def _digest(cells: Sequence[ResolvedCell], backend: Backend) -> str:
    found = sha256()
    for cell in cells:
        found.update(repr(cell.tokens).encode())
        for point, edit in cell.edits:
            found.update(f"{point}\0".encode())
            found.update(_edit_bytes(edit, backend))
    return found.hexdigest()


def _edit_bytes(edit: Edit, backend: Backend) -> bytes:
    if not isinstance(edit, Intervention):
        return _value_bytes(edit, backend)
    parts = [type(edit).__name__.encode()]
    parts += [word.encode() + _value_bytes(value, backend) for word, value in edit.described()]
    return b"\0".join(parts)


def _value_bytes(value: Any, backend: Backend) -> bytes:
    if callable(value):
        raise SweepError(
            f"a cell edits by the function {value!r}, whose content no file can identify: resume="
            " needs interventions, mi_ref.do."
        )
    if not hasattr(value, "shape"):
        return repr(value).encode()
    host = backend.to_host(value)
    return f"{host.dtype}{tuple(host.shape)}".encode() + bytes(host.tobytes())
