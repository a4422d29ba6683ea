"""The errors of this package.

::

    MiRefError                     everything raised on purpose
    ├── ArgumentError (ValueError)  an argument has a value this call does not take
    ├── ConfigError  (ValueError)   config.json: a key missing, unread, contradictory
    ├── WeightError  (ValueError)   a tensor missing, unused, misshapen, not finite
    ├── TokenError   (ValueError)   text or token ids that cannot be used
    ├── ShapeError   (ValueError)   an array of the wrong shape, dtype or device
    ├── HookError    (LookupError)  a hook point that does not exist, or never fired
    ├── BackendError (LookupError)  a backend that is not installed or cannot run
    └── HubError     (OSError)      a checkpoint that cannot be fetched or found

Messages say what is wrong (with the value), what was needed and where that comes from, and the
next step. They list every fault found, not the first.
"""

from __future__ import annotations


class MiRefError(Exception):
    """Base of every error this package raises on purpose."""


class ConfigError(MiRefError, ValueError):
    """A checkpoint's configuration cannot be honoured exactly."""


class ArgumentError(MiRefError, ValueError):
    """An argument has a value this call does not take."""


class WeightError(MiRefError, ValueError):
    """A checkpoint's tensors do not fit its configuration."""


class TokenError(MiRefError, ValueError):
    """Text or token ids that the model or its tokenizer cannot take."""


class PairsError(TokenError):
    """Pairs of prompts that cannot be used, each with the reason."""


class ShapeError(MiRefError, ValueError):
    """An array has the wrong shape, dtype or device."""


class HookError(MiRefError, LookupError):
    """A hook point does not exist here, cannot be used so, or never fired."""

    def __str__(self) -> str:
        """Return the message itself: LookupError's own ``str`` is that of its arguments."""
        return str(self.args[0]) if self.args else ""


class BackendError(MiRefError, LookupError):
    """A backend is unknown, not installed, or lacks what was asked of it."""


class SweepError(MiRefError, ValueError):
    """A file of a sweep that is not this one's, or a sweep that no file can identify."""


class HubError(MiRefError, OSError):
    """A checkpoint is not where it was looked for, or could not be fetched."""
