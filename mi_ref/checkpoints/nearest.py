"""How a checkpoint differs from a family: all keys and tensors that do not fit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from mi_ref.checkpoints.check import TensorFault, tensor_faults
from mi_ref.checkpoints.safetensors import READABLE, TensorInfo
from mi_ref.config.decoder import DecoderConfig
from mi_ref.families import FAMILIES, Family
from mi_ref.families.reading.config_file import HfConfig

_READABLE = ", ".join(READABLE)


@dataclass(frozen=True, slots=True)
class Fit:
    """A checkpoint read as one family."""

    family: Family
    config: DecoderConfig
    """The decoder, with placeholders for faulty values."""
    faults: tuple[str, ...]
    """What is wrong with keys of ``config.json`` that the family reads, in sentences."""
    unread: Mapping[str, Any]
    """Keys that the family does not read."""
    tensor_faults: tuple[TensorFault, ...]
    """What is wrong with the tensors, once for all layers with the same fault."""

    def __len__(self) -> int:
        return len(self.faults) + len(self.unread) + len(self.tensor_faults)

    def sentences(self, *, names_only: bool) -> list[str]:
        """Return what does not fit, in sentences.

        Parameters
        ----------
        names_only : bool
            Leave out the tensors' shapes and details, which say little if another family is meant.
        """
        said = list(self.faults)
        if self.unread:
            listed = ", ".join(f"{key}={_brief(value)}" for key, value in self.unread.items())
            said.append(f"{self.family.model_type} does not read {listed}")
        if not names_only:
            return [*said, *map(str, self.tensor_faults)]
        kinds = {"missing": "missing", "misshapen": "of another shape", "unused": "not used"}
        for kind, what in kinds.items():
            if names := [fault.name for fault in self.tensor_faults if fault.kind == kind]:
                said.append(f"tensors {what}: {_by_layer(names)}")
        return said


def fit(family: Family, raw: Mapping[str, Any], tensors: Mapping[str, TensorInfo] | None) -> Fit:
    """Read a config and tensor headers as one family's, and note everything that does not fit.

    Parameters
    ----------
    family : Family
        The family.
    raw : mapping
        The parsed ``config.json``.
    tensors : mapping or None
        The tensors' headers; None if they cannot be read, so that they are not compared.
    """
    shapes = {name: tensor.shape for name, tensor in (tensors or {}).items()}
    read = HfConfig(raw, source="config.json", family=family.model_type, shapes=shapes)
    config = family.read_config(read)
    wrong: list[TensorFault] = []
    if tensors is not None:
        wrong = tensor_faults(config, family.weight_names, tensors)
        named = {fault.name for fault in wrong}
        wrong += [
            TensorFault("misshapen", name, f"is stored as {info.dtype}; expected {_READABLE}")
            for name, info in tensors.items()
            if info.n_bytes is None and info.dtype not in READABLE and name not in named
        ]
    return Fit(family, config, tuple(read.faults), read.unread(), tuple(collapse(wrong)))


def nearest(raw: Mapping[str, Any], tensors: Mapping[str, TensorInfo] | None) -> Fit:
    """Return the fit to the family that the checkpoint differs least from."""
    return min((fit(family, raw, tensors) for family in FAMILIES.values()), key=len)


def collapse(faults: Iterable[TensorFault]) -> list[TensorFault]:
    """Merge the same fault of several layers into one, with ``{layer}`` in the tensor's name.

    >>> print(*collapse([TensorFault("missing", f"h.{n}.w", "is missing") for n in range(3)]))
    h.{layer}.w is missing (layers 0 to 2)
    """
    layers: dict[TensorFault, list[int]] = {}
    for fault in faults:
        number = re.search(r"(?<=\.)\d+(?=\.)", fault.name)
        template = fault
        if number is not None:
            name = f"{fault.name[: number.start()]}{{layer}}{fault.name[number.end() :]}"
            template = replace(fault, name=name)
        layers.setdefault(template, []).extend([] if number is None else [int(number[0])])
    return [
        replace(template, detail=f"{template.detail} ({_named(found)})")
        if len(found) > 1
        else replace(template, name=template.name.replace("{layer}", "".join(map(str, found))))
        for template, found in layers.items()
    ]


def _named(layers: list[int]) -> str:
    first, last = min(layers), max(layers)
    if len(layers) > 2 and sorted(layers) == list(range(first, last + 1)):
        return f"layers {first} to {last}"
    shown = ", ".join(map(str, layers[:6]))
    return f"layers {shown}" + (f" and {len(layers) - 6} more" if len(layers) > 6 else "")


def _by_layer(names: list[str]) -> str:
    """List names, and the common start of those within layers only once."""
    inside: dict[str, list[str]] = {}
    for name in names:
        outer, layer, inner = name.partition("{layer}.")
        inside.setdefault(outer + layer, []).append(inner)
    return "; ".join(
        f"{outer}({', '.join(inner)})" if inner != [""] else outer
        for outer, inner in inside.items()
    )


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
