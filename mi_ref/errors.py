"""The errors of this package.

::

    MiRefError (Exception)              everything raised on purpose
    ├── ConfigError (ValueError)        config.json: a key missing, unread, contradictory
    ├── WeightError (ValueError)        a tensor missing, unused, misshapen, not finite
    ├── ArgumentError (ValueError)      an argument with a value that its call does not take
    ├── TokenError (ValueError)         text or token ids that cannot be used
    │   └── PairsError                  pairs of prompts that cannot be used, each with the reason
    ├── ShapeError (ValueError)         an array of the wrong shape, dtype or device
    ├── HookError (LookupError)         a hook point that does not exist, or never fired
    ├── BackendError (LookupError)      a backend that is not installed or cannot run
    ├── SweepError (ValueError)         a file that belongs to another sweep, or to none
    └── HubError (OSError)              a checkpoint that cannot be fetched or found

Messages say what is wrong (with the value), what was expected and where that comes from, and the
next step. They list every fault found, not only the first.
"""

from __future__ import annotations


class MiRefError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(MiRefError, ValueError):
    """A checkpoint's configuration cannot be honoured exactly."""


class WeightError(MiRefError, ValueError):
    """A checkpoint's tensors do not fit its configuration."""


class ArgumentError(MiRefError, ValueError):
    """An argument has a value that this call does not take."""


class TokenError(MiRefError, ValueError):
    """Text or token ids that the model or its tokenizer cannot take."""


class PairsError(TokenError):
    """Pairs of prompts that cannot be used, each with the reason."""


class ShapeError(MiRefError, ValueError):
    """An array has the wrong shape, dtype or device."""


class HookError(MiRefError, LookupError):
    """A hook point does not exist here, cannot be used so, or never fired."""

    def __str__(self) -> str:
        """Return the message as written; a KeyError, say, would show its repr."""
        return str(self.args[0]) if self.args else ""


class BackendError(MiRefError, LookupError):
    """A backend is unknown, not installed, or lacks what was asked of it."""


class SweepError(MiRefError, ValueError):
    """A file belongs to another sweep, or a sweep has no content that a file can identify."""


class HubError(MiRefError, OSError):
    """A checkpoint is not where it was looked for, or could not be fetched."""
