"""Readable, independent forward passes of language models with a hook at every step.

Read the package from here: `loading` finds and checks a checkpoint, `decoder` is the forward
pass, `sites` names every place in it, `hooks` reads and changes what passes there, `model` ties
them together, `analysis` asks questions.
"""

from __future__ import annotations

from mi_ref.backend import Backend, get_backend
from mi_ref.cache import Cache
from mi_ref.errors import (
    BackendError,
    ConfigError,
    HookError,
    HubError,
    MiRefError,
    ShapeError,
    TokenError,
    WeightError,
)
from mi_ref.hooks import Hook, capture
from mi_ref.loading import from_pretrained
from mi_ref.model import Model
from mi_ref.run import Run
from mi_ref.sites import GlobalSite, LayerSite, at

__all__ = [
    "Backend",
    "BackendError",
    "Cache",
    "ConfigError",
    "GlobalSite",
    "Hook",
    "HookError",
    "HubError",
    "LayerSite",
    "MiRefError",
    "Model",
    "Run",
    "ShapeError",
    "TokenError",
    "WeightError",
    "at",
    "capture",
    "from_pretrained",
    "get_backend",
]
