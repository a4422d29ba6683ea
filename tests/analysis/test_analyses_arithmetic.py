"""Analyses on models of every kind, compared with separate arithmetic on captured values.

Norms after attention and MLPs, parallel blocks, experts, windows, soft-caps, recurrence.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Model, analysis as a, at
from mi_ref.config.decoder import LayerNorm
from tests.analysis.test_analyses_everywhere import CASES, EXPERTS, NUMPY, RECURRENT
from tests.fixtures.by_hand import log_probs

Load = Callable[[str, Backend, str], Model]
IDS, OTHER = [3, 7, 11, 5, 9, 20, 2], [3, 7, 12, 5, 9, 20, 2]
ATTEND = [case for case in CASES if case not in RECURRENT]
pytestmark = pytest.mark.usefixtures("as_users_call")


def exact(load: Load, case: str) -> Model:
    return load(case, NUMPY, "float64")


def logits_of(model: Model, stream: Any, *, capped: bool = True, scale: Any = None) -> Any:
    """Return the logits of a stream ``[..., d_model]``; `scale` stands in for its own size."""
    norm, kind, unembed = model.params.ln_final, model.cfg.ln_final, model.params.unembed
    centred = isinstance(kind, LayerNorm)
    x = stream - stream.mean(-1, keepdims=True) if centred else stream
    own = np.sqrt((x**2).mean(-1, keepdims=True) + kind.eps)
    x = x / (own if scale is None else scale) * norm.weight
    x = x if norm.bias is None else x + norm.bias
    logits = x @ unembed.weight.T
    logits = logits if unembed.bias is None else logits + unembed.bias
    cap = model.cfg.softcap if capped else None
    return logits if cap is None else cap * np.tanh(logits / cap)


def kl(before: Any, after: Any) -> float:
    p, q = log_probs(before), log_probs(after)
    return float((np.exp(p) * (p - q)).sum())


@pytest.mark.parametrize("case", CASES)
def test_the_last_layer_is_ablated_as_the_stream_without_it(load: Load, case: str) -> None:
    model = exact(load, case)
    run = model.run(IDS, capture=[at.resid_pre[-1], at.resid_post[-1], at.mlp_out[-1]])
    streams: dict[Any, Any] = {
        "layer": run[at.resid_pre[-1]],
        "mlp": run[at.resid_post[-1]] - run[at.mlp_out[-1]],
    }
    for what, stream in streams.items():
        found = a.ablation(model, IDS, what=what, layers=[-1], target=3, other=4)
        logits = logits_of(model, stream[0, -1])
        (effect,) = found.effects
        assert effect.logit_difference == pytest.approx(logits[3] - logits[4], rel=1e-9, abs=1e-12)
        assert effect.kl == pytest.approx(kl(run.logits_at(), logits), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("what", "case"), [*(("attn", case) for case in CASES), *(("head", case) for case in ATTEND)]
)
def test_a_part_is_ablated_as_by_an_edit_of_ones_own(load: Load, case: str, what: Any) -> None:
    model = exact(load, case)
    index = 0 if what == "head" else None

    def without(x: Any, hook: Any) -> None:
        (x if index is None else x[:, :, index])[:, 1:3] = 0

    point = at.z[0] if what == "head" else at.attn_out[0]
    run = model.run(IDS, edits=[(point, without)])
    options: dict[str, Any] = {} if index is None else {"indices": [index]}
    found = a.ablation(model, IDS, what=what, layers=[0], positions=[1, 2], target=3, **options)
    (effect,) = found.effects
    assert effect.logit_difference == pytest.approx(float(run.logits_at()[3]), rel=1e-9)
    assert effect.kl == pytest.approx(kl(model.run(IDS).logits_at(), run.logits_at()), abs=1e-12)


@pytest.mark.parametrize("case", ATTEND)
def test_a_cut_edge_leaves_the_other_weights_in_their_proportions(load: Load, case: str) -> None:
    model = exact(load, case)
    query, key = 6, 5

    def renormalised(pattern: Any, hook: Any) -> None:
        pattern[:, :, query, key] = 0
        pattern[:, :, query] /= pattern[:, :, query].sum(-1, keepdims=True)

    for layer in range(model.cfg.n_layers):
        before = model.run(IDS, capture=[at.pattern[layer]])
        found = a.attention_knockout(model, IDS, layers=layer, queries=query, keys=key, target=3)
        after = model.run(IDS, edits=[(at.pattern[layer], renormalised)])
        weight = float(before[at.pattern[layer]][0, :, query, key].mean())
        assert weight > 0
        assert found.weight == pytest.approx(weight, rel=1e-12)
        assert found.comparison.kl == pytest.approx(
            kl(before.logits_at(), after.logits_at()), rel=1e-8, abs=1e-13
        )


@pytest.mark.parametrize("case", CASES)
def test_parts_of_the_stream_sum_to_it(load: Load, case: str) -> None:
    model = exact(load, case)
    stream = model.run(IDS, capture=[at.resid_post[-1]])[at.resid_post[-1]][0]
    neurons = [] if case in EXPERTS else list(range(model.cfg.n_layers))
    found = a.residual_decomposition(
        model, IDS, positions=None, heads=case not in RECURRENT, neurons=neurons
    )
    np.testing.assert_allclose(found.values.sum(0), stream, rtol=1e-10, atol=1e-12)
    kinds = {part.kind for part in found.components}
    assert ("neuron" in kinds, "head" in kinds) == (case not in EXPERTS, case not in RECURRENT)


@pytest.mark.parametrize("case", CASES)
def test_contributions_sum_to_the_difference_of_logits(load: Load, case: str) -> None:
    model = exact(load, case)
    stream = model.run(IDS, capture=[at.resid_post[-1]])[at.resid_post[-1]][0, -1]
    logits = logits_of(model, stream, capped=False)
    for by in ("component", "head", "neuron"):
        if (by, case) == ("neuron", "mixtral") or (by == "head" and case in RECURRENT):
            continue
        found = a.logit_attribution(model, IDS, 3, 4, by=by)
        total = sum(row[0] for row in found.contributions)
        assert total == pytest.approx(logits[3] - logits[4], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_the_growing_stream_gives_these_logits(load: Load, case: str) -> None:
    model = exact(load, case)
    found = a.accumulated_residual(model, IDS, 3, 4, mid=False)
    points = [at.resid_pre[0], *(at.resid_post[n] for n in range(model.cfg.n_layers))]
    run = model.run(IDS, capture=[*points, at.ln_final_scale])
    assert found.frozen is not None
    assert found.own is not None
    assert len(found.stages) == len(points)
    for point, frozen, own in zip(points, found.frozen, found.own, strict=True):
        scale = run[at.ln_final_scale][0, -1]
        for values, size in ((frozen, scale), (own, None)):
            logits = logits_of(model, run[point][0, -1], capped=False, scale=size)
            assert values[0] == pytest.approx(logits[3] - logits[4], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("sending", ["attn", "mlp"])
@pytest.mark.parametrize("case", CASES)
def test_a_direct_path_adds_to_the_last_stream(load: Load, case: str, sending: Any) -> None:
    model = exact(load, case)
    metric = a.metrics.logit_difference(model, 3, 4)
    found = a.path_patching(model, IDS, OTHER, senders=sending, freeze="all", metric=metric)
    site = at.attn_out if sending == "attn" else at.mlp_out
    base, source = (model.run(ids, capture=[site[:], at.resid_post[-1]]) for ids in (OTHER, IDS))
    for layer, (value,) in enumerate(found.values):
        change = source[site[layer]] - base[site[layer]]
        logits = logits_of(model, (base[at.resid_post[-1]] + change)[0, -1])
        assert value == pytest.approx(logits[3] - logits[4], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_these_logits_are_the_models_own(load: Load, case: str) -> None:
    model = exact(load, case)
    run = model.run(IDS, capture=[at.resid_post[-1]])
    own = logits_of(model, run[at.resid_post[-1]])
    np.testing.assert_allclose(own, np.asarray(run.logits), rtol=1e-10, atol=1e-12)
