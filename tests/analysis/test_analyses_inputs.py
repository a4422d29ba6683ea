"""Inputs of analyses: NumPy numbers, masks, ranges, and meaningless values.

Every spelling of the same input gives the same record; a meaningless one gives a clear error.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, Backend, HookError, Model, ShapeError, TokenError, analysis, at
from mi_ref.analysis import metrics
from mi_ref.output.files import json_text
from tests.analysis.test_analyses_everywhere import NUMPY
from tests.fixtures.analysis_arguments import (
    CALLS,
    COUNTS,
    ONE_PLACE,
    PLACES,
    PROMPTS,
    RECURRENT,
    TOKENS,
    arguments,
)
from tests.fixtures.analysis_calls import EDGE, IDS, OTHER

Load = Callable[[str, Backend, str], Model]
pytestmark = pytest.mark.usefixtures("as_users_call")


def ask(load: Load, call: str, **changed: Any) -> Any:
    model = load("rwkv7" if call.startswith(RECURRENT) else "llama2", NUMPY, "float64")
    given = {**CALLS[call], **changed}
    given |= {k: v(model) for k, v in given.items() if inspect.isfunction(v)}
    return getattr(analysis, call)(model, **given)


def told(load: Load, call: str, **changed: Any) -> str:
    return json_text(ask(load, call, **changed).record())


def size_of(load: Load, call: str, name: str) -> int:
    """Return the number of places that an analysis can be given."""
    cfg = load("rwkv7" if call.startswith(RECURRENT) else "llama2", NUMPY, "float64").cfg
    if name == "layers" or (call, name) == ("residual_decomposition", "neurons"):
        return cfg.n_layers
    return {"heads": cfg.n_heads, "indices": cfg.n_heads, "neurons": cfg.d_mlp}.get(name, len(IDS))


@pytest.mark.parametrize(("call", "name"), arguments(*PLACES))
def test_places_can_be_said_in_many_ways(load: Load, call: str, name: str) -> None:
    size = size_of(load, call, name)
    two, mask = [size - 2, size - 1], [n >= size - 2 for n in range(size)]
    plain = told(load, call, **{name: two})
    for same in (tuple(two), range(size - 2, size), slice(-2, None), [*two, -1], np.array(two),
                 mask, np.array(mask), [np.int64(-2), -1]):  # fmt: skip
        assert told(load, call, **{name: same}) == plain, same
    last = told(load, call, **{name: [size - 1]})
    assert last != plain
    for one in (-1, size - 1, np.int64(-1), np.array(size - 1)):
        assert told(load, call, **{name: one}) == last, one


@pytest.mark.parametrize(("call", "name"), arguments(*PLACES))
def test_what_is_no_place_is_refused(load: Load, call: str, name: str) -> None:
    size = size_of(load, call, name)
    outside = ([size], [-size - 1], size, [0, size], np.array([size]), [True], [True] * (size + 1))
    # An empty choice of layers for the neurons is valid.
    nothing = [] if (call, name) == ("residual_decomposition", "neurons") else [[], slice(2, 2)]
    for wrong in (*outside, *nothing, True, 1.0, [1.5], np.array([1.0]), "x", [None], [[0, 1]],
                  np.array([[0, 1]]), [True, 1]):  # fmt: skip
        # A subject may be text, but these prompts are token ids.
        with pytest.raises((ArgumentError, HookError, ShapeError, TokenError)):
            ask(load, call, **{name: wrong})


@pytest.mark.parametrize(("call", "name"), arguments(*ONE_PLACE))
def test_one_place_is_one(load: Load, call: str, name: str) -> None:
    size = 2 if name == "layer" else len(IDS)
    plain = told(load, call, **{name: 1})
    # Prompts of a sweep differ in length: it keeps positions that count from the end.
    for same in (np.int64(1), np.array(1), *([] if call == "sweep" else [1 - size])):
        assert told(load, call, **{name: same}) == plain, same
    # Some analyses choose a layer themselves.
    for wrong in (size, -size - 1, [0, 1], True, 1.0, "1", *([] if name == "layer" else [None])):
        with pytest.raises((ArgumentError, HookError, ShapeError)):
            ask(load, call, **{name: wrong})


@pytest.mark.parametrize(("call", "name"), arguments(*TOKENS))
def test_a_token_is_one_id(load: Load, call: str, name: str) -> None:
    plain = told(load, call, **{name: 5})
    for same in (np.int64(5), np.array(5)):
        assert told(load, call, **{name: same}) == plain, same
    for wrong in (999, -1, True, 3.0, [3, 4], (3,), np.array([3]), " Paris and Rome"):
        with pytest.raises(TokenError):
            ask(load, call, **{name: wrong})


@pytest.mark.parametrize(("call", "name"), arguments(*PROMPTS))
def test_a_prompt_is_one_row_of_ids(load: Load, call: str, name: str) -> None:
    ids = CALLS[call][name]
    plain = told(load, call)
    for same in (tuple(ids), np.array(ids), np.array([ids]), np.array(ids, np.int32), [ids],
                 [np.int64(n) for n in ids]):  # fmt: skip
        assert told(load, call, **{name: same}) == plain, same
    several: list[Any] = [[[3, 4], [5, 6]], np.zeros((1, 1, 3), int)]
    for wrong in ([], [[]], np.array([], int), [999, 3], [-1, 3], [3.0], np.array([3.0]), [True],
                  *several, 7, None, "text"):  # fmt: skip
        with pytest.raises((TokenError, ShapeError)):
            ask(load, call, **{name: wrong})


@pytest.mark.parametrize(("call", "name"), arguments("target", "answer"))
def test_a_text_of_two_tokens_is_no_token(atlas: Model, call: str, name: str) -> None:
    if call.startswith(RECURRENT):
        atlas = mi_ref.from_pretrained("atlas-rwkv7")
    given = {**CALLS[call], name: " Paris and"}
    given |= {k: v(atlas) for k, v in given.items() if inspect.isfunction(v)}
    with pytest.raises(TokenError, match="' Paris and' is not one token of atlas"):
        getattr(analysis, call)(atlas, **given)


@pytest.mark.parametrize("call", CALLS)
def test_a_prompt_of_one_token_gives_numbers_or_a_reason(load: Load, call: str) -> None:
    names = [name for name in PROMPTS if name in CALLS[call]]
    one: dict[str, Any] = {name: [3 + n] for n, name in enumerate(names)}
    if call in ("attention_knockout", "causal_tracing", "knockout_grid"):
        # It would have no key left to look at, or lies before the subject.
        with pytest.raises((ArgumentError, HookError, ShapeError)):
            told(load, call, **one)
    else:
        assert "NaN" not in told(load, call, **one)


@pytest.mark.parametrize(("call", "name"), arguments("corrupted", "counterfactual", "contrast"))
def test_one_prompt_twice_has_nothing_to_carry_over(load: Load, call: str, name: str) -> None:
    with pytest.raises(TokenError, match="are the same tokens: nothing can differ"):
        ask(load, call, **{name: IDS})


FOREIGN = metrics.Token(999, "of a larger vocabulary")


@pytest.mark.parametrize(("call", "name"), arguments("metric"))
@pytest.mark.parametrize(
    "metric",
    [
        metrics.Logit(FOREIGN),
        metrics.LogitDifference(metrics.Token(3, "x"), FOREIGN),
        metrics.Probability(metrics.Token(-1, "counted from the end")),
        metrics.LogProbability(FOREIGN),
        metrics.Rank(FOREIGN),
        metrics.Divergence((-1.0,) * 17),
        "kl",
        [],
    ],
    ids=str,
)
def test_a_metric_of_another_vocabulary_is_refused(
    load: Load, call: str, name: str, metric: Any
) -> None:
    reason = "these logits|a sweep needs something to measure"
    with pytest.raises((TokenError, ShapeError), match=reason):
        ask(load, call, **{name: metric})


@pytest.mark.parametrize(("call", "name"), [*arguments(*COUNTS), ("ablation", "rows")])
def test_counts_are_whole_numbers(load: Load, call: str, name: str) -> None:
    more: dict[str, Any] = {"method": "resample"} if call == "dataset_ablation" else {}
    more |= {"method": "resample", "reference": [OTHER]} if call == "ablation" else {}
    more |= {"prompt": None} if call == "head_scores" else {}
    assert told(load, call, **more, **{name: np.int64(2)}) == told(load, call, **more, **{name: 2})
    for wrong in (1.5, "2", True, [2]):
        with pytest.raises(ShapeError, match=f"{name}=.*whole number"):
            ask(load, call, **more, **{name: wrong})


@pytest.mark.parametrize(("call", "name"), arguments("scales", "strengths", "factors"))
def test_strengths_are_finite(load: Load, call: str, name: str) -> None:
    plain = told(load, call, **{name: [0.5, 2.0]})
    assert told(load, call, **{name: np.array([0.5, 2.0])}) == plain
    for wrong in ([float("nan")], [float("inf")], 0.5, np.float64(0.5), ["a"], [[0.5]]):
        with pytest.raises(ShapeError):
            ask(load, call, **{name: wrong})


@pytest.mark.parametrize(
    ("call", "changed"),
    [
        ("recurrent_feedback", {"loop": (0,)}),
        ("recurrent_feedback", {"loop": (0.0, 1)}),
        ("activation_patching", {"site": "resid_post"}),
        ("activation_patching", {"site": at.resid_post[0]}),
        ("head_patching", {"site": at.embed}),
        ("causal_tracing", {"site": at.logits}),
        ("causal_tracing", {"noise": float("nan")}),
        ("path_patching", {"receivers": at.v[1]}),
        ("sweep", {"cells": analysis.SweepCell(())}),
        ("sweep", {"cells": [()]}),
        ("dataset_ablation", {"targets": 3}),
    ],
    ids=repr,
)
def test_other_things_that_cannot_be_meant(load: Load, call: str, changed: Any) -> None:
    (name,) = changed
    with pytest.raises((HookError, ShapeError), match=f"{name}="):
        ask(load, call, **changed)


def test_pairs_are_two_prompts_each(tiny: Model) -> None:
    for pairs in ((IDS, OTHER), [IDS], [(IDS,)], [(IDS, OTHER, 3)], "ab"):
        for pairwise in (analysis.factual_routing_pairs, analysis.block_patching_pairs):
            with pytest.raises(TokenError, match=r"pair 0, .* is not two prompts"):
                pairwise(tiny, pairs)  # type: ignore[arg-type]


def test_probes_refuse_what_scikit_learn_would(load: Load) -> None:
    pytest.importorskip("sklearn")
    model, prompts = load("llama2", NUMPY, "float64"), [IDS, OTHER, IDS[2:], OTHER[2:]]
    for wrong, reason in (
        ({"held_out": 0.25}, "splits them into 3 and 1: each side needs all 2 labels"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, "seed=1.5"),
        ({"regularisation": float("inf")}, "regularisation=inf"),
        ({"site": at.pattern}, "one with pos is needed"),
        ({"site": at.embed}, "a site of layers is needed"),
        ({"position": None}, "position=None"),
    ):
        given: dict[str, Any] = {"held_out": 0.5, "layers": [0], **wrong}
        with pytest.raises((HookError, ShapeError), match=reason):
            analysis.linear_probes(model, prompts, [0, 1, 0, 1], **given)
    labels: Any = np.array([0, 1, 0, 1])
    found = analysis.linear_probes(model, prompts, labels, held_out=0.5, position=0)
    plain = analysis.linear_probes(model, prompts, [0, 1, 0, 1], held_out=0.5, position=0)
    assert json_text(found.record()) == json_text(plain.record())


def test_other_calls_take_plain_numbers(load: Load) -> None:
    model = load("llama2", NUMPY, "float64")
    found = analysis.calibrate(model, IDS, OTHER, layer=np.int64(1), **EDGE)  # type: ignore[arg-type]
    assert found == analysis.calibrate(model, IDS, OTHER, layer=1, **EDGE)
    with pytest.raises(ShapeError, match=r"edge \(5,\): name its query and its key"):
        analysis.calibrate(model, IDS, OTHER, layer=1, source_edge=(5,))  # type: ignore[arg-type]
    run = model.run(IDS)
    told_by = analysis.compare(run, run, position=np.int64(2), top=np.int64(3))  # type: ignore[arg-type]
    assert json_text(told_by.record()) == json_text(
        analysis.compare(run, run, position=2, top=3).record()
    )
    with pytest.raises(ShapeError, match="top=-1"):
        analysis.compare(run, run, top=-1)
    with pytest.raises(ShapeError, match="n_tokens=0"):
        analysis.generate_with_feedback(model, IDS, 0, loop=(0, 1))
    recurrent = load("rwkv7", NUMPY, "float64")
    with pytest.raises(ShapeError, match=r"layer \[7\] of 3"):
        analysis.mix_by_recurrence(recurrent.run(IDS), 7, recurrent.params.embed[None, :6, None, :])
