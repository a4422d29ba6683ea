"""The checkpoint that a model was loaded from, and what is told of both once they are gone."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from mi_ref.backend import Backend
from mi_ref.checkpoints.safetensors import WeightFiles
from mi_ref.compute import Compute
from mi_ref.config.decoder import DecoderConfig
from mi_ref.output.origin import Origin, TokenTexts


@dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint a model was loaded from."""

    name: str
    """As the caller gave it."""
    revision: str | None
    """Commit on the Hub; None for a folder or a bundled model."""
    weights: WeightFiles = field(repr=False)

    def sha256(self) -> str:
        """Return the SHA-256 of the weight files; reads them whole the first time."""
        return self.weights.sha256()


def origin_of(
    source: Source,
    cfg: DecoderConfig,
    backend: Backend,
    compute: Compute,
    tokenizer: TokenTexts,
    altered: str | None,
) -> Origin:
    """Return what has to be known of a model, or of a network, that was loaded from `source`.

    Parameters
    ----------
    source : Source
        Its checkpoint.
    cfg : DecoderConfig
        Its structure.
    backend, compute : Backend, Compute
        What it computes with, and in.
    tokenizer : TokenTexts
        Its tokenizer.
    altered : str or None
        None if it is as the checkpoint has it, else a mark of its own.
    """
    structure = hashlib.sha256(repr(cfg).encode()).hexdigest()
    return Origin(
        name=source.name,
        revision=source.revision,
        weights=source.weights.fingerprint,
        model_type=cfg.model_type,
        unread_config=tuple(cfg.unread_config),
        inferred=tuple(cfg.inferred),
        compat=cfg.compat,
        structure=structure,
        d_vocab=cfg.d_vocab,
        backend=backend.name,
        device=str(compute.device),
        dtype=compute.dtype_name,
        versions=versions(backend, "tokenizers"),
        tokenizer=tokenizer,
        altered=altered,
    )


def versions(backend: Backend, *packages: str) -> dict[str, str]:
    """Return the versions of this package, of what computes, of other packages and of Python."""
    import platform
    from importlib.metadata import version

    return {
        "mi_ref": version("mi_ref"),
        backend.name: backend.version,
        **{package: version(package) for package in packages},
        "python": platform.python_version(),
    }
