"""How a checkpoint differs from a family: every config key and tensor that does not fit, at once."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mi_ref.config import DecoderConfig
from mi_ref.families import FAMILIES, Family
from mi_ref.hf_config import HfConfig
from mi_ref.params import tensor_faults
from mi_ref.weights import READABLE, TensorInfo


@dataclass(frozen=True, slots=True)
class Fit:
    """A checkpoint read as one family."""

    family: Family
    config: DecoderConfig
    """With stand-ins where there are faults."""
    faults: tuple[str, ...]
    """Keys of ``config.json`` that are missing or that the family cannot honour, in sentences."""
    unread: Mapping[str, Any]
    """Keys that the family does not read."""
    tensor_faults: tuple[str, ...]
    """What is wrong with the tensors, in sentences, once for all layers."""

    def __len__(self) -> int:
        return len(self.faults) + len(self.unread) + len(self.tensor_faults)


def fit(family: Family, raw: Mapping[str, Any], tensors: Mapping[str, TensorInfo] | None) -> Fit:
    """Read a config and tensor headers as `family`'s, and note everything that does not fit.

    Parameters
    ----------
    family : Family
        To read it as.
    raw : mapping
        The parsed ``config.json``.
    tensors : mapping or None
        The headers; None if they cannot be read, which leaves the tensors out.
    """
    read = HfConfig(raw, source="config.json", family=family.model_type)
    config = family.read_config(read)
    wrong: list[str] = []
    if tensors is not None:
        wrong = tensor_faults(config, family.weight_names, tensors)
        wrong += [
            f"{name} is stored as {info.dtype}; {', '.join(READABLE)} can be read"
            for name, info in tensors.items()
            if info.dtype not in READABLE
        ]
    return Fit(family, config, tuple(read.faults), read.unread(), tuple(collapse(wrong)))


def nearest(raw: Mapping[str, Any], tensors: Mapping[str, TensorInfo] | None) -> Fit:
    """Return the fit to the family from which the checkpoint differs least."""
    return min((fit(family, raw, tensors) for family in FAMILIES.values()), key=len)


def collapse(sentences: Iterable[str]) -> list[str]:
    """Write once, with ``{layer}``, what sentences about tensors say of several layers.

    >>> collapse(["h.0.w is missing", "h.1.w is missing", "h.3.w is missing"])
    ['h.{layer}.w is missing (layers 0, 1, 3)']
    """
    layers: dict[str, list[int]] = {}
    for sentence in sentences:
        number = re.search(r"(?<=\.)\d+(?=\.)", sentence)
        if number is None:
            layers.setdefault(sentence, [])
        else:
            template = f"{sentence[: number.start()]}{{layer}}{sentence[number.end() :]}"
            layers.setdefault(template, []).append(int(number[0]))
    return [
        f"{text} ({_named(found)})" if len(found) > 1 else text.replace("{layer}", str(*found), 1)
        for text, found in layers.items()
    ]


def _named(layers: list[int]) -> str:
    first, last = min(layers), max(layers)
    if len(layers) > 2 and sorted(layers) == list(range(first, last + 1)):
        return f"layers {first} to {last}"
    shown = ", ".join(map(str, layers[:6]))
    return f"layers {shown}" + (f" and {len(layers) - 6} more" if len(layers) > 6 else "")
