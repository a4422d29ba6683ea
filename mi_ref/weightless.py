"""What other parts of the package need of a model, and what its runs and states keep of it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from mi_ref.backend import Backend
from mi_ref.compute import Compute
from mi_ref.config.decoder import DecoderConfig
from mi_ref.output.origin import Origin


@runtime_checkable
class Weightless(Protocol):
    """A model without its weights: a run and a state are one, so that they do not keep weights."""

    @property
    def cfg(self) -> DecoderConfig:
        """Sizes and structure."""

    @property
    def backend(self) -> Backend:
        """Array library and device."""

    @property
    def origin(self) -> Origin:
        """Where it comes from."""


@runtime_checkable
class Computing(Weightless, Protocol):
    """A model that can go on computing."""

    @property
    def compute(self) -> Compute:
        """Dtype and device."""
