"""Metrics of predictions compared with plain NumPy on every backend; their errors."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Model, ShapeError, TokenError
from mi_ref.analysis.measure.metrics import (
    Divergence,
    Likeliest,
    Logit,
    LogitDifference,
    LogProbability,
    Metric,
    Probability,
    Rank,
    Recovery,
    Token,
    divergence,
    logit_difference,
    recovery,
    token,
)

A, B = Token(3, " a"), Token(5, " b")
D_VOCAB = 48


def drawn(rows: int) -> Any:
    return np.random.default_rng(0).normal(0, 4, (rows, D_VOCAB))


def log_probs(logits: Any) -> Any:
    shifted = np.asarray(logits, np.longdouble)
    shifted = shifted - shifted.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def by_hand(logits: Any, reference: Any, corrupted: Any) -> list[tuple[Metric, Any]]:
    """Return each metric with what it has to be, computed in extended precision."""
    p, q, r = (log_probs(x) for x in (reference, logits, corrupted))
    kl = (np.exp(p) * (p - q)).sum(-1)
    whole = float((np.exp(p) * (p - r)).sum())
    order = np.argsort(-logits, axis=-1, kind="stable")
    known = tuple(p.astype(float).tolist())
    return [
        (LogitDifference(A, B), logits[:, 3] - logits[:, 5]),
        (Logit(A), logits[:, 3]),
        (Probability(A), np.exp(q)[:, 3]),
        (LogProbability(B), q[:, 5]),
        (Rank(A), 1 + np.argmax(order == 3, axis=-1)),
        (Likeliest(), order[:, 0]),
        (Divergence(known), kl),
        (Recovery(known, whole), 1 - kl / whole),
    ]


def test_every_number_equals_extended_precision(backend: Backend) -> None:
    logits, others = drawn(4), drawn(6)[4:]
    for metric, expected in by_hand(logits, *others):
        batched = backend.to_host(metric(backend.from_host(logits), xp=backend.xp))
        assert batched.dtype == np.float64
        np.testing.assert_allclose(batched, expected.astype(float), rtol=1e-13, atol=1e-14)
        for row in range(4):
            alone = metric(backend.from_host(logits[row]), xp=backend.xp)
            assert float(backend.to_host(alone)) == batched[row]


def test_float32_logits_lose_nothing_more() -> None:
    logits = drawn(2).astype(np.float32)
    expected = logits[:, 3].astype(float) - logits[:, 5].astype(float)
    assert (LogitDifference(A, B)(logits, xp=np) == expected).all()


def test_a_destroyed_prediction_is_not_clamped() -> None:
    """candle-mi drops tokens with a probability below 1e-10, and reports a KL of zero here."""
    reference, ruined = np.full(D_VOCAB, -200.0), np.full(D_VOCAB, -200.0)
    reference[3], ruined[5] = 0.0, 0.0
    metric = Divergence(tuple(log_probs(reference).astype(float).tolist()))
    assert float(metric(ruined, xp=np)) == pytest.approx(200.0, rel=1e-12)
    ruined[3] = -math.inf
    assert float(metric(ruined, xp=np)) == math.inf


def test_metrics_of_a_model(tiny: Model) -> None:
    run, other = tiny.run([5, 17, 3]), tiny.run([5, 17, 4])
    reference, corrupted = run.logits_at(), other.logits_at()
    assert float(divergence(tiny, reference)(reference, xp=np)) == 0.0
    share = recovery(tiny, reference, corrupted)
    assert float(share(reference, xp=np)) == 1.0
    assert float(share(corrupted, xp=np)) == pytest.approx(0.0, abs=1e-12)
    assert float(Rank(token(tiny, run.top(1)[0].id))(reference, xp=np)) == 1.0
    for p in run.top(4):
        found = Probability(token(tiny, p.id))(reference, xp=np)
        assert float(found) == pytest.approx(p.probability, rel=1e-5)


def test_they_print_compare_and_serialise(tiny: Model) -> None:
    reference = tiny.run([5, 17, 3]).logits_at()
    metrics = [metric for metric, _ in by_hand(drawn(1), drawn(1)[0], drawn(2)[1])]
    metrics.append(divergence(tiny, reference))
    assert [str(metric) for metric in metrics] == [
        "logit ' a' - ' b'", "logit ' a'", "p(' a')", "log p(' b')", "rank of ' a'",
        "likeliest token", "KL(reference || run)", "KL recovery", "KL(reference || run)",
    ]  # fmt: skip
    for metric in metrics:
        assert pickle.loads(pickle.dumps(metric)) == metric
        record = json.loads(json.dumps(metric.record()))
        assert (record["metric"], record["unit"]) == (metric.name, metric.unit)
        assert len(repr(metric)) < 120
    records = [json.dumps(metric.record()) for metric in metrics]
    assert len(set(records)) == len(records)
    assert metrics[0].record()["token"] == {"id": 3, "text": " a"}


def test_refusals(tiny: Model, load: Callable[[str, Backend, str], Model]) -> None:
    with pytest.raises(TokenError, match="needs two tokens; both are"):
        logit_difference(tiny, 3, 3)
    with pytest.raises(TokenError, match="out of range"):
        logit_difference(tiny, 3, 10**6)
    logits = tiny.run([5, 17]).logits_at()
    with pytest.raises(ShapeError, match=r"is 0\.0: a recovery is a share of it"):
        recovery(tiny, logits, logits)
    with pytest.raises(ShapeError, match="over 48 tokens, these logits over 7"):
        divergence(tiny, logits)(logits[:7], xp=np)
