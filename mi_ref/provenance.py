"""Where a result came from: what a saved file needs to be understood, and repeated, later."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mi_ref.weights import Weights

if TYPE_CHECKING:
    from mi_ref.model import Model


@dataclass(frozen=True, slots=True)
class Source:
    """The checkpoint a model was loaded from."""

    name: str
    """As the caller gave it."""
    revision: str | None
    """Commit on the Hub; None for a folder or a bundled model."""
    weights: Weights = field(repr=False)

    def sha256(self) -> str:
        """Return the SHA-256 of the weight files; reads them whole the first time."""
        return self.weights.sha256()


def provenance(model: Model, *, seed: int | None = None) -> dict[str, Any]:
    """Return what identifies a computation, ready for JSON.

    Parameters
    ----------
    model : Model
        What computed.
    seed : int or None
        Of whatever randomness took part; None if none did.
    """
    import platform
    from importlib.metadata import version

    return {
        "model": model.source.name,
        "revision": model.source.revision,
        "weights_sha256": model.source.sha256(),
        "model_type": model.cfg.model_type,
        "unread_config": list(model.cfg.unread_config),
        "backend": model.backend.name,
        "device": str(model.params.embed.device),
        "dtype": str(model.dtype).rpartition(".")[2],
        "seed": seed,
        "versions": {
            "mi_ref": version("mi_ref"),
            model.backend.name: model.backend.version,
            "tokenizers": version("tokenizers"),
            "python": platform.python_version(),
        },
    }
