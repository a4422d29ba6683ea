"""Entropies, divergences and ranks at their ends."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mi_ref.analysis.measure.distributions import entropy, kl_divergence, log_softmax, ranks


def test_distributions_at_their_ends() -> None:
    flat = np.zeros((1, 50), np.float32)
    assert entropy(log_softmax(flat, xp=np), xp=np)[0] == pytest.approx(math.log(50), rel=1e-15)
    sure = np.array([[0.0, -2000.0, -2000.0]])
    assert entropy(log_softmax(sure, xp=np), xp=np)[0] == 0.0
    # Neither clamped nor cut at the smallest probability: 2000 nats are 2000 nats.
    far = kl_divergence(log_softmax(sure[:, ::-1], xp=np), log_softmax(sure, xp=np), xp=np)
    assert far[0] == pytest.approx(2000.0)
    never = np.array([[-math.inf, math.log(0.5), math.log(0.5)]])
    always = np.log(np.array([[0.5, 0.25, 0.25]]))
    assert kl_divergence(never, always, xp=np)[0] == pytest.approx(math.log(2))
    assert kl_divergence(always, never, xp=np)[0] == math.inf


def test_ranks_of_equal_logits_follow_the_ids() -> None:
    logits = np.array([[1.0, 3.0, 3.0, 2.0]] * 4)
    assert ranks(logits, np.arange(4), xp=np).tolist() == [4, 1, 2, 3]
