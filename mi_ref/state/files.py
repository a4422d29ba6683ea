"""States in files: safetensors with a note of the model that they belong to."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from mi_ref.checkpoints.safetensors import HostArray, Weights
from mi_ref.errors import ShapeError
from mi_ref.output.files import json_text, write_whole
from mi_ref.output.origin import Origin

FORMAT = "mi_ref.state/1"


def write_state(
    path: str | os.PathLike[str], layers: Mapping[int, Mapping[str, HostArray]], origin: Origin
) -> None:
    """Write the parts of each layer, whole or not at all; see `State.save`."""
    from safetensors.numpy import save_file

    arrays = {
        f"layers.{number}.{name}": part.copy(order="C")
        for number, parts in layers.items()
        for name, part in parts.items()
    }
    note = {"format": FORMAT, "provenance": json_text(origin.record())}
    write_whole(path, lambda temporary: save_file(arrays, temporary, metadata=note))


def read_state(path: str | os.PathLike[str], origin: Origin) -> dict[int, dict[str, HostArray]]:
    """Read the parts of each layer in the dtype of the model at `origin`; see `State.load`.

    Raises
    ------
    ShapeError
        If it is not a saved state, or other weights made it.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            note = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ShapeError(f"{path} cannot be read as a state: {error}.") from error
    if note.get("format") != FORMAT:
        raise ShapeError(
            f"{path} is not a saved state: expected the format {FORMAT!r}, got"
            f" {note.get('format')!r}."
        )
    made_by = json.loads(note["provenance"])
    own = origin.weights.sha256()
    if made_by["weights_sha256"] != own:
        raise ShapeError(
            f"{path} was made by {made_by['model']} (weights {made_by['weights_sha256'][:12]}…);"
            f" this model is {origin.name} (weights {own[:12]}…), to which it means nothing."
        )
    stored = Weights([Path(path)])
    layers: dict[int, dict[str, HostArray]] = {}
    places = sorted((int(name.split(".")[1]), name) for name in stored.info)
    for number, name in places:
        part = stored.load(name, origin.dtype)
        layers.setdefault(number, {})[name.rpartition(".")[2]] = part
    return layers
