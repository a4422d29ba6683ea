"""Measure what the shipped RWKV-7 knows and what it can copy.

Run it from the root of the repository::

    python -m golden.atlas.evaluate_rwkv7 [DIR]
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from .evaluate import Subject, knowledge, repeated_batch, share_copied
from .rwkv7 import Rwkv7, TimeMix

SHIPPED = Path(__file__).parents[2] / "mi_ref" / "models" / "atlas-rwkv7"
PERIODS = (8, 16, 24, 32, 48)


def load(folder: Path) -> Rwkv7:
    """The saved, rounded model in float32; no tensor may be missing or extra."""
    model = Rwkv7(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model


def copied(subject: Subject, period: int) -> float:
    """The share of random tokens that are predicted correctly at their second occurrence."""
    ids = repeated_batch(subject, period, rows=64, seed=0)
    return share_copied(subject.model(ids).logits, ids, period)


def copied_without(subject: Subject, time_mix: TimeMix, period: int) -> float:
    """The same with the time mix of one layer adding nothing to the stream."""
    silence = time_mix.o_proj.register_forward_hook(lambda module, inputs, output: 0 * output)
    try:
        return copied(subject, period)
    finally:
        silence.remove()


@torch.no_grad()
def report(folder: Path) -> str:
    """Everything measured, as a table to print."""
    model = load(folder)
    subject = Subject(folder, model)
    lines = knowledge(subject)
    shares = "  ".join(f"{period}: {copied(subject, period):.1%}" for period in PERIODS)
    lines.append(f"random tokens copied, by period: {shares}")
    without = "  ".join(
        f"layer {index}: {copied_without(subject, layer.attn, 24):.1%}"
        for index, layer in enumerate(model.model.layers)
    )
    lines.append(f"at period 24 without the time mix of {without}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED))
