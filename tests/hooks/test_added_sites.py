"""Sites that a caller adds: listed, selected, captured and edited like any other."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mi_ref import ArgumentError, GlobalSite, HookError, LayerSite, Model, at, capture, do
from mi_ref.forward.plan import NO_TAP, HookPlan, Pass
from mi_ref.hooks.catalog import HookPoints
from mi_ref.hooks.sites import ALL_SITES

FEATURES = LayerSite(
    "features",
    "blocks.{layer}.hook_features",
    ("batch", "pos", "feature"),
    "What a sparse dictionary finds in resid_mid.",
)
ACTIVATIONS = np.arange(2 * 5 * 8, dtype=np.float32).reshape(2, 5, 8)


@pytest.fixture
def points(tiny: Model) -> HookPoints:
    return tiny.hook_points.with_sites(FEATURES, sizes={"feature": 8}, after=at.resid_mid)


def passed(
    model: Model, points: HookPoints, captures: Any, edits: Any, check_edits: bool = False
) -> tuple[Any, HookPlan]:
    """Pass `ACTIVATIONS` by the tap of layer 1, as a forward file of one's own would."""
    over = Pass(
        layers=range(2),
        sites=frozenset(),
        batch=2,
        n_pos=5,
        n_keys=5,
        out_pos=5,
        padding=None,
        like=model.params.embed,
        backend=model.backend,
    )
    plan = HookPlan(points, captures, edits, over, check_edits=check_edits)
    out = plan.tap(1)(FEATURES, ACTIVATIONS)
    plan.check_fired()
    return out, plan


@pytest.mark.parametrize(
    "selector",
    [FEATURES[1], FEATURES[-1], FEATURES[1:], "blocks.1.hook_features", "*.1.hook_feat*",
     ("features", 1), lambda name: name == "blocks.1.hook_features"],
)  # fmt: skip
def test_it_is_selected_captured_and_edited(selector: Any, tiny: Model, points: Any) -> None:
    edits = [(selector, do.zero(where={"feature": [3]})), (selector, do.add(1.0, positions=-1))]
    out, plan = passed(tiny, points, [selector], edits)
    wanted = ACTIVATIONS.copy()
    wanted[:, :, 3] = 0.0
    wanted[:, -1] += 1.0
    np.testing.assert_array_equal(out, wanted)
    np.testing.assert_array_equal(plan.captured[FEATURES[1]], wanted)
    _, plan = passed(tiny, points, [capture(selector, before_edits=True, pos=[2])], edits)
    np.testing.assert_array_equal(plan.captured[FEATURES[1]], ACTIVATIONS[:, 2:3])


def test_what_it_does_not_have_is_refused(tiny: Model, points: Any) -> None:
    for where, said in (
        ({"feature": [8]}, r"at at\.features\[1\]: feature \[8\] of 8: expected indices from -8"),
        ({"expert": [0]}, r"axes are batch pos feature: it has no expert to choose from"),
        ({"head": [0]}, r"it has no heads to choose from"),
        ({"feature": []}, r"selects none of its 8 feature"),
    ):
        with pytest.raises(HookError, match=said):
            passed(tiny, points, (), [(FEATURES[1], do.zero(where=where))])
    idle = [(FEATURES[1], do.scale(1.0, where={"feature": [0]}))]
    with pytest.raises(HookError, match=r"changed no value.*scale\(where=\{'feature': \(0,\)\}"):
        passed(tiny, points, (), idle, check_edits=True)
    with pytest.raises(HookError, match=r"at\.features is not a site of this model"):
        passed(tiny, tiny.hook_points, [FEATURES[1]], ())
    with pytest.raises(
        HookError, match=r"'blocks\.0\.hook_feature'. Did you mean 'blocks\.0\.hook_f"
    ):
        passed(tiny, points, ["blocks.0.hook_feature"], ())
    with pytest.raises(HookError, match=r"site of every layer: write 'blocks\.0\.hook_features'"):
        passed(tiny, points, ["features"], ())


def test_a_model_that_never_taps_it_says_so(tiny: Model, points: Any) -> None:
    model = replace(tiny, hook_points=points)
    plain, run = tiny.run([1, 2, 3]), model.run([1, 2, 3], capture=[at.z[0]])
    np.testing.assert_array_equal(np.asarray(run.logits), np.asarray(plain.logits))
    with pytest.raises(HookError, match=r"never reached at\.features\[0\].* needs code that taps"):
        model.run([1, 2, 3], capture=[FEATURES[0]])


def test_it_is_listed_where_it_stands(tiny: Model, points: Any) -> None:
    order = [entry.point for entry in points]
    assert len(order) == len(tiny.hook_points) + 2
    for layer in range(2):
        place = order.index(at.resid_mid[layer])
        assert order[place + 1] == FEATURES[layer]
    assert [point for point in order if point.site != FEATURES] == [
        entry.point for entry in tiny.hook_points
    ]
    assert points.at(FEATURES[0]).sizes(3, 4) == (3, 4, 8)
    lines = str(points.table(2, 5)).splitlines()
    (line,) = [line for line in lines if "hook_features" in line]
    assert "2 × 5 × 8" in line
    assert "sparse dictionary" in line
    assert "features" not in str(tiny.hook_points)


def test_it_may_be_in_some_layers_or_outside_them(tiny: Model) -> None:
    whole = GlobalSite("late", "hook_late", ("batch", "pos", "d_model"), "Read at the end.")
    second = LayerSite("second", "blocks.{layer}.hook_second", ("batch", "head", "1"))
    points = tiny.hook_points.with_sites(FEATURES, second, whole, sizes={"feature": 2}, layers=[1])
    order = [entry.point for entry in points]
    assert order[-1] == whole
    assert order.index(second[1]) == order.index(FEATURES[1]) + 1
    assert order.index(FEATURES[1]) == order.index(at.resid_post[1]) + 1
    assert FEATURES[0] not in order
    assert points.at(second[1]).shape == ("batch", tiny.cfg.n_heads, 1)
    assert "Only in layers 1." in str(points)
    with pytest.raises(HookError, match="does not exist in this model: it was added to other"):
        passed(tiny, points, [FEATURES[0]], ())
    _, plan = passed(tiny, points, [FEATURES[:]], ())
    assert list(plan.captured) == [FEATURES[1]]


def test_a_layer_at_which_nothing_is_asked_has_the_null_tap(tiny: Model, points: Any) -> None:
    _, plan = passed(tiny, points, [FEATURES[1]], ())
    assert plan.tap(0) is NO_TAP
    assert plan.tap(None) is NO_TAP


@pytest.mark.parametrize(
    ("site", "options", "message"),
    [
        (FEATURES, {}, r"axis 'feature' has no size in this model\. Give one: sizes="),
        (FEATURES, {"sizes": {"feature": 8}, "layers": [2]}, r"layers=\[2\]: expected layers 0 to"),
        (FEATURES, {"sizes": {"feature": 8}, "after": at.pos_embed}, "expected a site of this mod"),
        (at.z, {}, r"at\.z \(.*hook_z\): a site of that name exists already"),
        (LayerSite("own", at.z.string, ("batch",)), {}, "a site of that name exists already"),
        (LayerSite("own", "hook_own", ("batch",)), {}, r"begins with 'blocks\.\{layer\}\.' if"),
        (GlobalSite("own", "blocks.{layer}.own", ("batch",)), {}, r"got .* 'blocks\.\{layer\}\.o"),
        (GlobalSite("own", "hook_own", ("pos",)), {}, "expected a first axis 'batch'"),
    ],
)  # fmt: skip
def test_sites_that_cannot_be_added_are_refused(
    site: Any, options: Any, message: str, tiny: Model
) -> None:
    with pytest.raises(ArgumentError, match=message):
        tiny.hook_points.with_sites(site, **options)


def test_copies_of_a_site_name_the_same_points(points: Any) -> None:
    for again in (pickle.loads(pickle.dumps(FEATURES)), copy.deepcopy(FEATURES)):
        assert again == FEATURES
        assert again[1] in points
        assert again.doc == FEATURES.doc
        assert hash(again) == hash(FEATURES)
    back = pickle.loads(pickle.dumps(points))
    assert back.at(FEATURES[1]) == points.at(FEATURES[1])
    assert FEATURES not in ALL_SITES


def test_experts_are_chosen_by_the_axis(load: Callable[..., Model]) -> None:
    import mi_ref

    model = load("mixtral", mi_ref.get_backend("numpy"), "float64")
    site = at.expert_weights[0]
    run = model.run([1, 2, 3], capture=[site], edits=[(site, do.zero(where={"expert": [1]}))])
    found, plain = np.asarray(run[site]), np.asarray(model.run([1, 2, 3], capture=[site])[site])
    assert not found[:, :, 1].any()
    np.testing.assert_array_equal(np.delete(found, 1, -1), np.delete(plain, 1, -1))
