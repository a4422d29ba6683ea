from . import algzoo as algzoo, analysis as analysis, do as do, testing as testing
from .backend import Backend as Backend, get_backend as get_backend
from .checkpoints.inspect import inspect_checkpoint as inspect_checkpoint
from .edits.files import load_edits as load_edits, save_edits as save_edits
from .edits.state import (
    state_knockout as state_knockout,
    state_steering as state_steering,
    token_removal as token_removal,
)
from .errors import (
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
from .hooks.cache import Cache as Cache
from .hooks.capture import Hook as Hook, capture as capture
from .hooks.sites import GlobalSite as GlobalSite, LayerSite as LayerSite, at as at
from .load import from_pretrained as from_pretrained
from .model import Model as Model
from .output.saved import load_result as load_result
from .run import Run as Run
from .state.state import LayerState as LayerState, State as State

__all__: list[str]
