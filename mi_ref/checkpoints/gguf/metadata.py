"""The keys of a GGUF file's architecture, taken one by one; what is left was not understood."""

from __future__ import annotations

import math
import struct
from typing import Any

from mi_ref.checkpoints.gguf.file import GgufFile
from mi_ref.errors import ConfigError


class Metadata:
    """What a file says of its architecture, and what had to be inferred.

    Parameters
    ----------
    file : GgufFile
        The file.
    name : str
        Its ``general.architecture``, which the keys start with.
    source : str
        The file, for messages.
    """

    def __init__(self, file: GgufFile, name: str, source: str) -> None:
        self.file, self.name, self.source = file, name, source
        self.keys = {
            key.removeprefix(f"{name}."): _shortest(_constant(value))
            for key, value in file.metadata.items()
            if key.startswith(f"{name}.")
        }
        self.inferred: list[str] = []

    def refuse(self, why: str) -> ConfigError:
        """Return an error about the file."""
        return ConfigError(f"{self.source}: {why}")

    def size(self, key: str, default: int | None = None) -> int:
        """Return a positive whole number that the layout of tensors depends on; it stays."""
        value = self.keys.get(key, default)
        if type(value) is not int or value < 1:
            raise self.refuse(
                f"{self.name}.{key} is {'missing' if value is None else value}; expected one whole"
                " number above 0 for all layers."
            )
        return value

    def take(self, key: str, default: Any = None) -> Any:
        """Return the value of a key and take it; without one, `default`."""
        return self.keys.pop(key, default)

    def take_if(self, key: str, *values: object) -> None:
        """Take a key that says what holds anyway; another value stays, and will be refused."""
        if key in self.keys and self.keys[key] in values:
            del self.keys[key]

    def infer(self, sentence: str) -> None:
        """Note what the file leaves out."""
        self.inferred.append(sentence)

    @property
    def n_blocks(self) -> int:
        """Blocks of which the file holds tensors."""
        blocks = (name.split(".")[1] for name in self.file.tensors if name.startswith("blk."))
        return len(set(blocks))


def _constant(value: Any) -> Any:
    """Return the one number of a list that has the same for every layer; others stay."""
    same = isinstance(value, list) and value and all(item == value[0] for item in value)
    return value[0] if same and not isinstance(value[0], bool) else value


def _shortest(value: Any) -> Any:
    """Return the shortest decimal of a float32, such as 1e-06 for 9.99999997e-07."""
    if type(value) is not float or not math.isfinite(value) or abs(value) > 3e38:
        return value
    stored = struct.pack("<f", value)
    if struct.unpack("<f", stored)[0] != value:
        return value  # it was stored as a float64
    candidates = (float(f"{value:.{digits}g}") for digits in range(1, 10))
    return next(short for short in candidates if struct.pack("<f", short) == stored)
