"""What logits say: log-probabilities, entropy, divergence, ranks; each over the last axis.

In nats, in log space, and never clamped: an epsilon would hide how far apart two predictions are.
"""

from __future__ import annotations

from mi_ref._typing import Array, Float, Int, Namespace
from mi_ref.errors import TokenError


def log_softmax(
    logits: Float[Array, "*rows d_vocab"], *, xp: Namespace
) -> Float[Array, "*rows d_vocab"]:
    """Return log-probabilities in float64, whatever the dtype of `logits`."""
    exact = xp.astype(logits, xp.float64, copy=False)
    shifted = exact - xp.max(exact, axis=-1, keepdims=True)
    return shifted - xp.log(xp.sum(xp.exp(shifted), axis=-1, keepdims=True))


def scores_of(scores: Float[Array, "*rows d_vocab"], token_id: int) -> Float[Array, "*rows"]:
    """Return what each row has for one token.

    Raises
    ------
    TokenError
        If the rows are over a smaller vocabulary than the token is of.
    """
    d_vocab = scores.shape[-1]
    if not 0 <= token_id < d_vocab:
        raise TokenError(
            f"token id {token_id} is out of range: these logits are over {d_vocab} tokens. Make"
            " metrics with the model that they measure."
        )
    return scores[..., token_id]


def entropy(log_probs: Float[Array, "*rows d_vocab"], *, xp: Namespace) -> Float[Array, "*rows"]:
    """Return ``-Σ p log p``; what has no probability adds nothing."""
    probs = xp.exp(log_probs)
    return -xp.sum(probs * xp.where(probs > 0, log_probs, 0.0), axis=-1)


def kl_divergence(
    log_p: Float[Array, "*rows d_vocab"], log_q: Float[Array, "*rows d_vocab"], *, xp: Namespace
) -> Float[Array, "*rows"]:
    """Return ``KL(p ‖ q) = Σ p (log p - log q)``: nats lost by predicting q where p is true.

    What has no probability under p adds nothing; infinite if q has none where p has some.
    """
    probs = xp.exp(log_p)
    log_p, log_q = (xp.where(probs > 0, x, 0.0) for x in (log_p, log_q))
    return xp.sum(probs * (log_p - log_q), axis=-1)


def ranks(
    logits: Float[Array, "rows d_vocab"], ids: Int[Array, " rows"], *, xp: Namespace
) -> Int[Array, " rows"]:
    """Return the rank of one token in each row, from 1; of equal logits the first id is ahead."""
    own = xp.take_along_axis(logits, ids[:, None], axis=-1)
    places = xp.arange(logits.shape[-1], dtype=ids.dtype, device=logits.device)
    ahead = (logits > own) | ((logits == own) & (places[None, :] < ids[:, None]))
    return 1 + xp.sum(xp.astype(ahead, xp.int64), axis=-1)
