"""States in files: safetensors with a note of the model that they belong to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from mi_ref.errors import ShapeError
from mi_ref.provenance import json_text, provenance, write_whole
from mi_ref.weights import Weights

if TYPE_CHECKING:
    from mi_ref.model import Model
    from mi_ref.state import State

FORMAT = "mi_ref.state/1"


def save_state(state: State, path: str | os.PathLike[str]) -> None:
    """Write a state, whole or not at all; see `State.save`."""
    from safetensors.numpy import save_file

    from mi_ref.state import PARTS

    host = state.model.backend.to_host
    arrays = {
        f"layers.{number}.{name}": host(getattr(part, name)).copy(order="C")
        for number, part in state.layers.items()
        for name in PARTS
    }
    note = {"format": FORMAT, "provenance": json_text(provenance(state.model))}
    write_whole(path, lambda temporary: save_file(arrays, temporary, metadata=note))


def load_state(path: str | os.PathLike[str], model: Model) -> State:
    """Read a state; see `State.load`."""
    from safetensors import SafetensorError, safe_open

    from mi_ref.state import PARTS, LayerState, State

    try:
        with safe_open(path, framework="np") as file:
            note = file.metadata() or {}
    except (OSError, SafetensorError) as error:
        raise ShapeError(f"{path} cannot be read as a state: {error}.") from error
    if note.get("format") != FORMAT:
        raise ShapeError(
            f"{path} is no saved state: its format is {note.get('format')!r}, not {FORMAT!r}."
        )
    made_by = json.loads(note["provenance"])
    own = model.source.sha256()
    if made_by["weights_sha256"] != own:
        raise ShapeError(
            f"{path} was made by {made_by['model']} (weights {made_by['weights_sha256'][:12]}…);"
            f" this model is {model.source.name} (weights {own[:12]}…), to which it means nothing."
        )
    stored, dtype = Weights([Path(path)]), str(model.dtype).rpartition(".")[2]
    numbers = sorted({int(name.split(".")[1]) for name in stored.info})
    take = model.backend.from_host
    layers = {
        number: LayerState(*(take(stored.load(f"layers.{number}.{p}", dtype)) for p in PARTS))
        for number in numbers
    }
    return State(layers, model)
