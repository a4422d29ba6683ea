"""Load a checkpoint whose type has no family file, or learn why it cannot load.

Copies a model under an unknown ``model_type`` and inspects it. If its config and tensors determine
its structure, it loads, the table lists what was inferred, and the logits equal the model's own.
With one more key in its config, which stays unread, it is refused. Runs offline on the bundled
model, or on any checkpoint::

    python examples/auto_config.py [--model NAME]
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import mi_ref
from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.checkpoints.inspect import Inspection
from mi_ref.cli.script import run


def disguise(config: Path, folder: Path, **changes: Any) -> Path:
    """Fill a folder with a checkpoint's files, its config changed."""
    folder.mkdir()
    for file in config.parent.iterdir():
        if file.name != config.name and file.is_file():
            (folder / file.name).symlink_to(file.resolve())
    changed = json.loads(config.read_text(encoding="utf-8")) | changes
    (folder / config.name).write_text(json.dumps(changed), encoding="utf-8")
    return folder


def logits(name: str | Path) -> Any:
    """Return a checkpoint's logits for four of its tokens."""
    return np.asarray(mi_ref.from_pretrained(name).run([0, 1, 2, 3]).logits)


def main(name: str = "atlas") -> list[Inspection]:
    """Print and return the inspection of the unknown type, without and with a stray key."""
    config = find_checkpoint(name).config
    with TemporaryDirectory() as made, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Loading repeats what the table says.
        plain = disguise(config, Path(made) / "plain", model_type="acme")
        stray = disguise(config, Path(made) / "stray", model_type="acme", logit_scale=0.5)
        found = [mi_ref.inspect_checkpoint(folder) for folder in (plain, stray)]
        found[0].print()
        if not found[0].refusals:
            gap = float(np.max(np.abs(logits(plain) - logits(name))))
            print(f"logits differ from those of {name} by {gap:g} at most\n")
        found[1].table().matching("model_type|loads|refused").print()
    return found


if __name__ == "__main__":
    run(main)
