"""Copies of golden models' folders with changed tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from mi_ref.weights import Weights

Change = Callable[[dict[str, Any]], Mapping[str, Any]]
"""From the tensors of a case by name, in float32, to those that the copy is to hold."""
Altered = Callable[[str, Change], Path]
"""From a case and a change to the folder of the changed copy."""


def altered_copy(case: Path, folder: Path, change: Change) -> Path:
    """Write the config and the changed tensors of the golden `case` into `folder`."""
    (folder / "config.json").write_bytes((case / "config.json").read_bytes())
    weights = Weights([case / "model.safetensors"])
    tensors = change({name: weights.load(name, "float32") for name in weights.info})
    arrays = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(arrays, folder / "model.safetensors")
    return folder
