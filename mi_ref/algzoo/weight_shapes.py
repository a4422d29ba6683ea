"""What each tensor of AlgZoo's files is called, what its axes are, and whether they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

Axes: TypeAlias = Mapping[str, tuple[str, ...]]
"""Axes of each tensor by name; ``1`` is a size, ``3 × width`` a multiple, all else a name."""

RNN: Axes = {
    "rnn.weight_ih_l0": ("neuron", "1"),
    "rnn.weight_hh_l0": ("neuron", "neuron"),
    "linear.weight": ("answer", "neuron"),
}


def attention(n_layers: int) -> Axes:
    """Return the axes of a transformer of so many layers."""
    axes: dict[str, tuple[str, ...]] = {
        "embed.weight": ("value", "width"),
        "pos_embed.weight": ("pos", "width"),
        "unembed.weight": ("answer", "width"),
    }
    for layer in range(n_layers):
        axes[f"attns.{layer}.in_proj_weight"] = ("3 × width", "width")
        axes[f"attns.{layer}.out_proj.weight"] = ("width", "width")
    return axes


def misfits(axes: Axes, shapes: Mapping[str, tuple[int, ...]]) -> list[str]:
    """Return what is missing, misshapen or unexpected among tensors, in sentences; empty if none.

    The first tensor that has an axis determines its size.
    """
    sizes: dict[str, int] = {}
    found = [
        f"{name} is missing: [{', '.join(wanted)}] was needed"
        if name not in shapes
        else f"{name} is {tuple(shapes[name])}, not {_needed(wanted, sizes)}"
        for name, wanted in axes.items()
        if name not in shapes or not _agrees(wanted, shapes[name], sizes)
    ]
    found += [
        f"{name} {tuple(shape)} is not used" for name, shape in shapes.items() if name not in axes
    ]
    return found


def _agrees(wanted: tuple[str, ...], shape: tuple[int, ...], sizes: dict[str, int]) -> bool:
    """Return whether a shape fits; sizes that were not known before are noted."""
    if len(shape) != len(wanted):
        return False
    for size, axis in zip(shape, wanted, strict=True):
        times, _, name = axis.rpartition(" × ")
        factor = int(times or 1)
        if size < 1 or size % factor:
            return False
        each = size // factor
        if each != (1 if name == "1" else sizes.setdefault(name, each)):
            return False
    return True


def _needed(wanted: tuple[str, ...], sizes: Mapping[str, int]) -> str:
    known = (
        f"{axis} {sizes[name]}" if (name := axis.rpartition(" × ")[2]) in sizes else axis
        for axis in wanted
    )
    return f"[{', '.join(known)}]"
