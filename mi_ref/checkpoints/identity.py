"""What makes a model itself: its origin, and how copies and pickles of it lead back to it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

from mi_ref.backend import Backend
from mi_ref.checkpoints.source import Source, origin_of
from mi_ref.compute import Compute
from mi_ref.config.decoder import DecoderConfig
from mi_ref.output.origin import Origin
from mi_ref.text.tokenizer import Tokenizer


class Identity:
    """An immutable model that is pickled by the name of its checkpoint, and copied as itself."""

    __slots__ = ()

    cfg: DecoderConfig
    backend: Backend
    compute: Compute
    tokenizer: Tokenizer
    source: Source
    origin: Origin
    _reload: Callable[[str], Any] | None

    def __post_init__(self) -> None:
        # `replace` comes here too: a model that differs from the one loaded has its own origin.
        mark = os.urandom(16).hex()
        origin = origin_of(self.source, self.cfg, self.backend, self.compute, self.tokenizer, mark)
        object.__setattr__(self, "origin", origin)

    def as_loaded(self, reload: Callable[[str], Self]) -> Self:
        """Say of a new model that it is its checkpoint's, unchanged; return it.

        Parameters
        ----------
        reload : callable
            Loads it in another process, given the SHA-256 of its weights; it can be pickled.
        """
        object.__setattr__(self, "origin", replace(self.origin, altered=None))
        object.__setattr__(self, "_reload", reload)
        return self

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # Nothing in it ever changes, and the weights are large.
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self._reload is None:
            raise TypeError(
                f"this model is not {self.source.name} as it was loaded: it was changed by hand,"
                " with dataclasses.replace, and another process could not load it by its name."
                " Pickle the model as loaded, and change it again where it arrives."
            )
        return self._reload, (self.origin.weights.sha256(),)
