"""What a run makes of one prompt's next token, measured against a run without edits."""

from __future__ import annotations

from dataclasses import dataclass

from mi_ref._typing import Array, Float
from mi_ref.analysis.measure.distributions import kl_divergence, log_softmax
from mi_ref.backend import Backend
from mi_ref.output.origin import Origin
from mi_ref.run import Run


@dataclass(frozen=True, slots=True)
class Outcome:
    """The next token after an intervention."""

    probability: float
    """The target's probability."""
    kl: float
    """KL(baseline ‖ this) in nats: what is lost by predicting as this run does."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """The prediction of a run without edits, and the token to follow."""

    target: int
    log_probs: Float[Array, " d_vocab"]
    backend: Backend
    origin: Origin

    @property
    def token(self) -> str:
        """The target as text."""
        return self.origin.token_string(self.target)

    def outcome(self, run: Run) -> Outcome:
        """Measure another run's last position."""
        xp, host = self.backend.xp, self.backend.to_host
        log_probs = log_softmax(run.logits_at(), xp=xp)
        kl = kl_divergence(self.log_probs, log_probs, xp=xp)
        return Outcome(float(host(xp.exp(log_probs))[self.target]), float(host(kl)))


def baseline(run: Run, target: str | int | None) -> Baseline:
    """Return a run as what others are measured against.

    Parameters
    ----------
    run : Run
        Without edits, with logits at its last position.
    target : str, int or None
        One token; None for the one that the run finds likeliest.
    """
    wanted = run.top(1)[0].id if target is None else run.origin.token_id(target)
    log_probs = log_softmax(run.logits_at(), xp=run.backend.xp)
    return Baseline(wanted, log_probs, run.backend, run.origin)
