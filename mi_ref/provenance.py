"""Where a result came from: what a saved file needs to be understood, and repeated, later."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_ref.weights import Weights

if TYPE_CHECKING:
    from mi_ref.backend import Backend
    from mi_ref.model import Model


@dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint a model was loaded from."""

    name: str
    """As the caller gave it."""
    revision: str | None
    """Commit on the Hub; None for a folder or a bundled model."""
    weights: Weights = field(repr=False)

    def sha256(self) -> str:
        """Return the SHA-256 of the weight files; reads them whole the first time."""
        return self.weights.sha256()


def provenance(model: Model, *, seed: int | None = None) -> dict[str, Any]:
    """Return what identifies a computation, ready for JSON.

    Parameters
    ----------
    model : Model
        What computed.
    seed : int or None
        Of whatever randomness took part; None if none did.
    """
    return {
        "model": model.source.name,
        "revision": model.source.revision,
        "weights_sha256": model.source.sha256(),
        "model_type": model.cfg.model_type,
        "unread_config": list(model.cfg.unread_config),
        "inferred": list(model.cfg.inferred),
        "compat": model.cfg.compat,
        "backend": model.backend.name,
        "device": str(model.params.embed.device),
        "dtype": str(model.dtype).rpartition(".")[2],
        "seed": seed,
        "versions": versions(model.backend, "tokenizers"),
    }


def versions(backend: Backend, *packages: str) -> dict[str, str]:
    """Return the versions of this package, of what computes, of other packages and of Python."""
    import platform
    from importlib.metadata import version

    return {
        "mi_ref": version("mi_ref"),
        backend.name: backend.version,
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
    }


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
