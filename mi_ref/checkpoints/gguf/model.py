"""A model in GGUF, opened: its config and where its tensors go, nothing decoded."""

from __future__ import annotations

from dataclasses import dataclass, replace

from mi_ref.checkpoints.gguf.config import GgufConfig, read_gguf_config
from mi_ref.checkpoints.gguf.file import GgufFile
from mi_ref.checkpoints.gguf.names import origins
from mi_ref.checkpoints.gguf.weights import GgufWeights
from mi_ref.config.decoder import DecoderConfig
from mi_ref.families import FAMILIES


@dataclass(frozen=True, slots=True)
class GgufModel:
    """A model in GGUF, opened; nothing is decoded yet."""

    file: GgufFile
    config: GgufConfig
    weights: GgufWeights

    def with_inferred(self, cfg: DecoderConfig) -> DecoderConfig:
        """Return the config with a note of everything that the format leaves out."""
        inferred = (*cfg.inferred, *self.config.inferred)
        return replace(cfg, reading=replace(cfg.reading, inferred=inferred))


def open_model(file: GgufFile, *, source: str) -> GgufModel:
    """Read the config of a file and find where its tensors go.

    Raises
    ------
    ConfigError, WeightError
        If its architecture is unknown, or its metadata or tensors cannot be read.
    """
    config = read_gguf_config(file, source=source)
    names = FAMILIES[config.raw["model_type"]].weight_names
    weights = GgufWeights(file, origins(names, config.layout, file.tensors))
    return GgufModel(file, config, weights)
