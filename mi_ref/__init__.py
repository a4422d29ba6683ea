"""Readable, independent forward passes of language models with a hook at every step.

Read the package from here: `loading` finds and checks a checkpoint, `decoder` is the forward
pass, `sites` names every place in it, `hooks` reads and changes what passes there, `model` ties
them together, `analysis` asks questions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mi_ref import analysis as analysis
    from mi_ref.backend import Backend as Backend, get_backend as get_backend
    from mi_ref.cache import Cache as Cache
    from mi_ref.errors import (
        BackendError as BackendError,
        ConfigError as ConfigError,
        HookError as HookError,
        HubError as HubError,
        MiRefError as MiRefError,
        ShapeError as ShapeError,
        TokenError as TokenError,
        WeightError as WeightError,
    )
    from mi_ref.hooks import Hook as Hook, capture as capture
    from mi_ref.inspection import inspect_checkpoint as inspect_checkpoint
    from mi_ref.loading import from_pretrained as from_pretrained
    from mi_ref.model import Model as Model
    from mi_ref.run import Run as Run
    from mi_ref.sites import LayerSite as LayerSite, at as at
    from mi_ref.tokenizer import Tokenizer as Tokenizer
