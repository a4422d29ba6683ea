"""The types in which GGUF stores numbers, as the package ``gguf`` defines them."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import Any

from mi_ref.checkpoints.gguf.header import StoredType
from mi_ref.errors import WeightError


@cache
def package() -> Any:
    """Return the package ``gguf``.

    Raises
    ------
    WeightError
        If it is not installed, or too old.
    """
    try:
        found = import_module("gguf")
        import_module("gguf.quants")
    except ModuleNotFoundError as error:
        raise WeightError(
            f"reading a GGUF file needs the package {error.name!r}, which is not installed:"
            " pip install 'mi_ref[gguf]'"
        ) from error
    return found


@cache
def stored_types() -> dict[int, StoredType]:
    """Return every type of storage by its number."""
    sizes = package().GGML_QUANT_SIZES
    return {int(kind): StoredType(kind.name, block, size) for kind, (block, size) in sizes.items()}
