"""Numbers that say what a model predicts next, as values: they print, compare and go to files.

A metric is called on logits, ``[d_vocab]`` or ``[batch, d_vocab]``, and gives one number for each
row, computed in float64 and log space whatever the dtype of the logits. Nothing is clamped: where
a prediction has no probability left, a divergence is infinite and shows as that.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from array import array
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any, ClassVar

from mi_ref._typing import Array, Float, Namespace
from mi_ref.analysis.measure.distributions import kl_divergence, log_softmax, ranks, scores_of
from mi_ref.errors import ShapeError, TokenError
from mi_ref.model import Model


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of a vocabulary, with the text that it shows as."""

    id: int
    text: str


class Metric(ABC):
    """Base of metrics; a subclass says what it computes, what it is called and in which unit."""

    __slots__ = ()

    name: ClassVar[str]
    unit: ClassVar[str]

    @abstractmethod
    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the metric of each row, in float64."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What is measured, in a few words for headings."""

    def record(self) -> dict[str, Any]:
        """Return name, unit and everything it depends on; of a reference, the SHA-256."""
        content = asdict(self)  # type: ignore[call-overload]
        if "reference" in content:
            content["reference_sha256"] = _digest(content.pop("reference"))
        return {"metric": self.name, "unit": self.unit, **content}

    def __str__(self) -> str:
        return self.label


@dataclass(frozen=True, slots=True)
class Logit(Metric):
    """The logit of a token: comparable between runs only as far as all logits keep their level."""

    name: ClassVar[str] = "logit"
    unit: ClassVar[str] = "nats up to a constant"
    token: Token

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the logit in each row."""
        return xp.astype(scores_of(logits, self.token.id), xp.float64)

    @property
    def label(self) -> str:
        """The token."""
        return f"logit {self.token.text!r}"


@dataclass(frozen=True, slots=True)
class LogitDifference(Metric):
    """The logit of `token` less that of `other`: the log-odds of the one against the other."""

    name: ClassVar[str] = "logit_difference"
    unit: ClassVar[str] = "nats"
    token: Token
    other: Token

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the difference of each row."""
        pair = (scores_of(logits, each.id) for each in (self.token, self.other))
        first, second = (xp.astype(scores, xp.float64) for scores in pair)
        return first - second

    @property
    def label(self) -> str:
        """Which logit less which."""
        return f"logit {self.token.text!r} - {self.other.text!r}"


@dataclass(frozen=True, slots=True)
class Probability(Metric):
    """The probability of a token."""

    name: ClassVar[str] = "probability"
    unit: ClassVar[str] = "probability"
    token: Token

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the probability in each row."""
        return xp.exp(scores_of(log_softmax(logits, xp=xp), self.token.id))

    @property
    def label(self) -> str:
        """The token."""
        return f"p({self.token.text!r})"


@dataclass(frozen=True, slots=True)
class LogProbability(Metric):
    """The natural logarithm of a token's probability."""

    name: ClassVar[str] = "log_probability"
    unit: ClassVar[str] = "nats"
    token: Token

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the log-probability in each row."""
        return scores_of(log_softmax(logits, xp=xp), self.token.id)

    @property
    def label(self) -> str:
        """The token."""
        return f"log p({self.token.text!r})"


@dataclass(frozen=True, slots=True)
class Rank(Metric):
    """The rank of a token among all, from 1; of equal logits the first id is ahead."""

    name: ClassVar[str] = "rank"
    unit: ClassVar[str] = "rank"
    token: Token

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the rank in each row."""
        scores_of(logits, self.token.id)  # Refuses a token of another vocabulary.
        flat = xp.reshape(logits, (-1, logits.shape[-1]))
        ids = xp.full(flat.shape[0], self.token.id, dtype=xp.int64, device=logits.device)
        return xp.astype(xp.reshape(ranks(flat, ids, xp=xp), logits.shape[:-1]), xp.float64)

    @property
    def label(self) -> str:
        """The token."""
        return f"rank of {self.token.text!r}"


@dataclass(frozen=True, slots=True)
class Likeliest(Metric):
    """The id of the likeliest token, which ids up to 2**53 survive as a number."""

    name: ClassVar[str] = "likeliest"
    unit: ClassVar[str] = "token id"

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the id for each row."""
        return xp.astype(xp.argmax(logits, axis=-1), xp.float64)

    @property
    def label(self) -> str:
        """The same for all."""
        return "likeliest token"


@dataclass(frozen=True, slots=True, repr=False)
class Divergence(Metric):
    """``KL(reference ‖ prediction)`` in nats: what is lost by predicting so."""

    name: ClassVar[str] = "kl"
    unit: ClassVar[str] = "nats"
    reference: tuple[float, ...]
    """Log-probabilities of the prediction compared with, by token id."""

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the divergence of each row."""
        if logits.shape[-1] != len(self.reference):
            raise ShapeError(
                f"{self.label}: the reference is over {len(self.reference)} tokens, these logits"
                f" over {logits.shape[-1]}. Take both from one model."
            )
        reference = xp.asarray(self.reference, dtype=xp.float64, device=logits.device)
        log_q = log_softmax(logits, xp=xp)
        return kl_divergence(xp.broadcast_to(reference, log_q.shape), log_q, xp=xp)

    @property
    def label(self) -> str:
        """The same for all references."""
        return "KL(reference || run)"

    def __repr__(self) -> str:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "reference"}
        said = [f"<{len(self.reference)} tokens>", *(f"{k}={v!r}" for k, v in values.items())]
        return f"{type(self).__name__}({', '.join(said)})"


@dataclass(frozen=True, slots=True, repr=False)
class Recovery(Divergence):
    """``1 - KL(reference ‖ run) / KL(reference ‖ corrupted)``.

    1 where the reference's prediction is back, 0 where nothing has changed, below 0 where the run
    is further from it than the corrupted one.
    """

    name: ClassVar[str] = "kl_recovery"
    unit: ClassVar[str] = "share of the reference's prediction"
    corrupted: float
    """``KL(reference ‖ corrupted)`` in nats."""

    def __post_init__(self) -> None:
        if not 0 < self.corrupted < math.inf:
            raise ShapeError(
                f"KL(reference || corrupted) is {self.corrupted}: a recovery is a share of it, so"
                " that it has to be finite and above zero. Do both prompts predict the same?"
            )

    def __call__(
        self, logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
    ) -> Float[Array, "*rows"]:
        """Return the recovery of each row."""
        return 1 - Divergence.__call__(self, logits, xp=xp) / self.corrupted

    @property
    def label(self) -> str:
        """The same for all references."""
        return "KL recovery"


def token(model: Model, which: str | int) -> Token:
    """Return a token given as an id or as exactly one token's text; see `lens.token_id`."""
    found = model.origin.token_id(which)
    return Token(found, model.token_string(found))


def logit_difference(model: Model, first: str | int, other: str | int) -> LogitDifference:
    """Return the metric for two tokens, each an id or exactly one token's text.

    Raises
    ------
    TokenError
        If they are the same, so that the difference is zero whatever happens.
    """
    metric = LogitDifference(token(model, first), token(model, other))
    if metric.token == metric.other:
        raise TokenError(
            f"a logit difference needs two tokens; both are {metric.token.text!r}"
            f" (id {metric.token.id}). Name another token, or use the log-probability of this one."
        )
    return metric


def divergence(model: Model, reference: Float[Array, " d_vocab"]) -> Divergence:
    """Return the divergence from the prediction that these logits make."""
    return Divergence(_log_probs(model, reference))


def recovery(
    model: Model, reference: Float[Array, " d_vocab"], corrupted: Float[Array, " d_vocab"]
) -> Recovery:
    """Return the recovery between two predictions, given as logits."""
    xp, known = model.backend.xp, divergence(model, reference)
    return Recovery(known.reference, float(known(corrupted, xp=xp)))


def _log_probs(model: Model, logits: Float[Array, " d_vocab"]) -> tuple[float, ...]:
    listed = model.backend.to_host(log_softmax(logits, xp=model.backend.xp)).tolist()
    return tuple(listed)


def _digest(values: tuple[float, ...]) -> str:
    return sha256(array("d", values).tobytes()).hexdigest()
