"""Readable, independent forward passes of language models with a hook at every step.

Read the package from here: `loading` finds and checks a checkpoint, `decoder` is the forward
pass, `sites` names every place in it, `plan` reads and changes what passes there, `model` ties
them together, `analysis` asks questions.

Names load on first use, so that ``import mi_ref`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi_ref import algzoo as algzoo, analysis as analysis, do as do, testing as testing
    from mi_ref.backend import Backend as Backend, get_backend as get_backend
    from mi_ref.checkpoints.inspect import inspect_checkpoint as inspect_checkpoint
    from mi_ref.edits.files import load_edits as load_edits, save_edits as save_edits
    from mi_ref.edits.state import (
        state_knockout as state_knockout,
        state_steering as state_steering,
        token_removal as token_removal,
    )
    from mi_ref.errors import (
        ArgumentError as ArgumentError,
        BackendError as BackendError,
        ConfigError as ConfigError,
        HookError as HookError,
        HubError as HubError,
        MiRefError as MiRefError,
        PairsError as PairsError,
        ShapeError as ShapeError,
        SweepError as SweepError,
        TokenError as TokenError,
        WeightError as WeightError,
    )
    from mi_ref.hooks.cache import Cache as Cache
    from mi_ref.hooks.capture import Hook as Hook, capture as capture
    from mi_ref.hooks.sites import GlobalSite as GlobalSite, LayerSite as LayerSite, at as at
    from mi_ref.load import from_pretrained as from_pretrained
    from mi_ref.model import Model as Model
    from mi_ref.run import Run as Run
    from mi_ref.state.state import LayerState as LayerState, State as State

_HOME = {
    "ArgumentError": "errors",
    "Backend": "backend",
    "BackendError": "errors",
    "Cache": "cache",
    "ConfigError": "errors",
    "GlobalSite": "sites",
    "Hook": "hooks",
    "HookError": "errors",
    "HubError": "errors",
    "LayerSite": "sites",
    "LayerState": "state",
    "MiRefError": "errors",
    "Model": "model",
    "PairsError": "errors",
    "Run": "run",
    "ShapeError": "errors",
    "State": "state",
    "SweepError": "errors",
    "TokenError": "errors",
    "WeightError": "errors",
    "at": "sites",
    "capture": "hooks",
    "from_pretrained": "loading",
    "get_backend": "backend",
    "inspect_checkpoint": "inspection",
    "load_edits": "edit_files",
    "save_edits": "edit_files",
    "state_knockout": "state_interventions",
    "state_steering": "state_interventions",
    "token_removal": "state_interventions",
}
_MODULES = ("algzoo", "analysis", "do", "testing")

__all__ = sorted([*_HOME, *_MODULES])


# Type checkers know the names from the imports above; this would make every name exist for them.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name in _MODULES:
            return import_module(f"mi_ref.{name}")
        if name not in _HOME:
            raise AttributeError(f"module 'mi_ref' has no attribute {name!r}.")
        value = getattr(import_module(f"mi_ref.{_HOME[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return __all__
