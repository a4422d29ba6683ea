"""Hooks as arguments of a call: errors before any compute, and the captures of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import (
    ArgumentError,
    Hook,
    HookError,
    LayerSite,
    Model,
    ShapeError,
    at,
    capture,
    do,
    get_backend,
)
from tests.fixtures.by_hand import equal

pytestmark = pytest.mark.usefixtures("as_users_call")

PROMPT = [[40, 12, 5, 14, 19], [39, 21, 4, 16, 28]]


def unchanged(x: Any, hook: Hook) -> None:
    """Edit nothing."""


NEVER = LayerSite("my_site", "blocks.{layer}.hook_my_site", ("batch", "pos", "d_model"))


@pytest.mark.parametrize(
    ("selector", "message"),
    [
        ("blocks.1.hook_resid_pots",
         r"'blocks\.1\.hook_resid_pots'\. Did you mean 'blocks\.1\.hook_resid_post' or"),
        ("resid_post", r"site of every layer: write 'blocks\.0\.hook_resid_post'"),
        ("blocks.9.attn.hook_z", r"at\.z\[9\]: this model's layers are 0 to 1"),
        ("blocks.*.hook_nothing", r"'blocks\.\*\.hook_nothing' matches none of this model's 55"),
        (lambda name: False, r"the predicate <function .* matches none of this model's 55"),
        (at.pos_embed, r"at\.pos_embed does not exist in this model: positions enter by rotation"),
        ("hook_pos_embed", r"at\.pos_embed does not exist in this model: positions enter"),
        (at.z[2], r"at\.z\[2\]: this model's layers are 0 to 1"),
        (at.z[-3], r"at\.z\[-3\]: this model's layers are 0 to 1"),
        (at.z[5:], r"at\.z\[5:\] selects no point this call reaches"),
        (at.z, r"at\.z is a site: write at\.z\[:\] for every layer"),
        (NEVER[0], r"at\.my_site is not a site of this model"),
        (NEVER[:], r"at\.my_site is not a site of this model"),
        (("z", 7), r"at\.z\[7\]: this model's layers are 0 to 1"),
        (("zz", 0), r"no hook site is named 'zz'"),
        (("embed", 0), r"at\.embed belongs to no layer: leave out the 0"),
        ("blocks.0.attn.hook_scores", r"refused: candle-mi's .* is before soft-cap and mask"),
        ("blocks.0.attn.q.hook_out", r"refused: TransformerBridge's .* is flat"),
    ],
)  # fmt: skip
def test_a_selector_that_means_nothing_is_refused(selector: Any, message: str, tiny: Model) -> None:
    for arguments in ({"capture": [selector]}, {"edits": [(selector, unchanged)]}):
        with pytest.raises(HookError, match=message):
            tiny.run(PROMPT, **arguments)


def test_what_is_no_selector_and_no_pair_is_refused(tiny: Model) -> None:
    wrong: Any = 3
    for arguments in ({"capture": [wrong]}, {"edits": [(wrong, unchanged)]}):
        with pytest.raises(ArgumentError, match="3 is not a selector: expected a hook point, a"):
            tiny.run(PROMPT, **arguments)
    for wrong in ([at.z[0]], [(at.z[0],)], [(at.z[0], unchanged, 1)]):
        with pytest.raises(ArgumentError, match=r"is not a \(selector, edit\) pair: write edits="):
            tiny.run(PROMPT, edits=wrong)


@pytest.mark.parametrize(
    ("point", "options"),
    [
        (at.resid_post[1], {"stop_at_layer": 1}),
        (at.resid_pre[0], {"stop_at_layer": 0}),
        (at.logits, {"logits": "none"}),
        (at.ln_final_scale, {"stop_at_layer": -1}),
    ],
)
def test_a_point_that_the_call_does_not_pass_is_refused(
    point: Any, options: dict[str, Any], tiny: Model
) -> None:
    message = "exists, but this call does not reach it: see its start_at_layer, stop_at_layer"
    for arguments in ({"capture": [point]}, {"edits": {str(point): unchanged}}):
        with pytest.raises(HookError, match=message):
            tiny.run(PROMPT, **arguments, **options)


def test_a_run_from_the_middle_passes_no_earlier_point(tiny: Model) -> None:
    resid = tiny.run(PROMPT, stop_at_layer=1).resid
    for point in (at.embed, at.z[0]):
        with pytest.raises(HookError, match="does not reach it"):
            tiny.run(resid, start_at_layer=1, capture=[point])
    assert list(tiny.run(resid, start_at_layer=1, capture=[at.z[:]]).cache) == [at.z[1]]


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (lambda x: x[:, :4], r"\(batch 2, pos 5, d_model 24\), got shape \(2, 4, 24\)\. pos differs"
                             ": patch between prompts of equal length"),
        (lambda x: x[0], r"shape \(5, 24\).* It has 2 axes instead of 3"),
        (lambda x: x[:1, :, :3], r"batch and d_model differ\."),
        (lambda x: x.astype(np.float64), r"expected float32 on cpu, got float64 on cpu"),
        (lambda x: x.tolist(), r"expected a numpy\.ndarray, got a list"),
        (lambda x: 0.0, r"expected a numpy\.ndarray, got a float"),
    ],
)  # fmt: skip
def test_an_array_that_does_not_fit_is_refused(
    replace: Callable[[Any], Any], message: str, tiny: Model
) -> None:
    x = tiny.run(PROMPT, capture=[at.resid_mid[1]])[at.resid_mid[1]]
    with pytest.raises(ShapeError, match=r"the replacement at at\.resid_mid\[1\].*" + message):
        tiny.run(PROMPT, edits={at.resid_mid[1]: replace(x)})
    with pytest.raises(ShapeError, match=r"what the edit returned at at\.resid_mid\[1\].*"):
        tiny.run(PROMPT, edits={at.resid_mid[1]: lambda y, hook: replace(y)})


@pytest.mark.parametrize("one", ["hook_embed", at.embed, at.z[0], at.z[:], at.z])
def test_one_selector_is_no_list_of_them(one: Any, tiny: Model) -> None:
    with pytest.raises(HookError, match=r"capture=.* is one selector: write capture=\["):
        tiny.run(PROMPT, capture=one)


def test_one_point_is_captured_in_one_way(tiny: Model) -> None:
    twice: list[Any] = [at.z[0], capture(at.z[0], pos=1)]
    with pytest.raises(HookError, match=r"at\.z\[0\] is to be captured twice.*pos=1.*two calls"):
        tiny.run(PROMPT, capture=twice)
    assert list(tiny.run(PROMPT, capture=[at.z[0], "blocks.0.attn.hook_z"]).cache) == [at.z[0]]


@pytest.mark.parametrize(
    ("pos", "message"),
    [
        (5, r"pos=5 of at\.z\[0\]: positions \[5\] of 5: expected indices from -5 to 4"),
        ([0, -6], r"pos=\[0, -6\] of at\.z\[0\]: positions \[-6\] of 5"),
        ([], r"pos=\[\] of at\.z\[0\] keeps none of the 5 positions"),
        (slice(5, None), r"keeps none of the 5 positions"),
    ],
)
def test_positions_that_mean_nothing_are_refused(pos: Any, message: str, tiny: Model) -> None:
    with pytest.raises(HookError, match=message):
        tiny.run(PROMPT, capture=[capture(at.z[0], pos=pos)])


@pytest.mark.parametrize(
    ("pos", "message"),
    [
        (1.0, r"pos=1\.0: expected an index, a slice, a sequence of indices"),
        # A mask would be read as positions 1 and 0.
        (np.array([True, False, True, True, True]), r"expected an index.* got a mask"),
        ([True, False], r"expected an index, a slice or a sequence, got a mask"),
    ],
)
def test_what_is_no_position_is_refused(pos: Any, message: str, tiny: Model) -> None:
    with pytest.raises(ArgumentError, match=message):
        tiny.run(PROMPT, capture=[capture(at.z[0], pos=pos)])


@pytest.mark.bits
def test_numbers_of_numpy_are_numbers(tiny: Model) -> None:
    layer = np.int64(1)
    pos: Any = np.array([3, 1])
    run = tiny.run(PROMPT, capture=[at.z[layer], ("q", layer), capture(at.k[0], pos=pos[0])])
    assert list(run.cache) == [at.k[0], at.q[1], at.z[1]]
    assert run["z", layer] is run[at.z[1]]
    cut = tiny.run(PROMPT, capture=[capture(at.z[layer], pos=pos)])[at.z[1]]
    assert equal(cut, run[at.z[1]][:, [3, 1]])


@pytest.mark.parametrize(
    "ends",
    [{"stop_at_layer": 3}, {"start_at_layer": -3}, {"start_at_layer": 2, "stop_at_layer": 1}],
)
def test_layers_that_are_no_range_are_refused(ends: dict[str, Any], tiny: Model) -> None:
    resid = tiny.run(PROMPT).resid
    with pytest.raises(HookError, match="is not a range of layers: this model's are 0 to 1"):
        tiny.run(resid if "start_at_layer" in ends else PROMPT, **ends)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x[0], r"\[batch, pos, d_model 24\]; this one is \(5, 24\)"),
        (lambda x: x[:, :, :3], r"this one is \(2, 5, 3\)"),
        (lambda x: x[:, :0], r"this one is \(2, 0, 24\)"),
        (lambda x: x.astype(np.float64), r"is float64 on cpu; the model computes in float32"),
        (lambda x: "text", r"not a str: take run\.resid or a captured at\.resid_pre"),
    ],
)
def test_a_residual_stream_that_does_not_fit_is_refused(
    make: Callable[[Any], Any], message: str, tiny: Model
) -> None:
    resid = tiny.run(PROMPT, stop_at_layer=1).resid
    with pytest.raises(ShapeError, match=message):
        tiny.run(make(resid), start_at_layer=1)
    with pytest.raises(ShapeError, match=message):
        tiny.project_to_vocab(make(resid))


def test_logits_has_three_values(tiny: Model) -> None:
    with pytest.raises(ArgumentError, match="logits='first': expected 'all', 'last' or 'none'"):
        tiny.run(PROMPT, logits="first")  # type: ignore[arg-type]


def test_an_edit_is_told_where_it_stands(tiny: Model) -> None:
    seen: list[tuple[str, int | None, Any]] = []

    def note(x: Any, hook: Hook) -> None:
        seen.append((hook.name, hook.layer, hook.point))

    tiny.run(PROMPT, edits=[(at.logits, note), (at.z[::-1], note), ("hook_embed", note)])
    assert seen == [
        ("hook_embed", None, at.embed),
        ("blocks.0.attn.hook_z", 0, at.z[0]),
        ("blocks.1.attn.hook_z", 1, at.z[1]),
        ("unembed.hook_out", None, at.logits),
    ]


@pytest.mark.bits
def test_edits_made_in_a_loop_know_their_own_layer(tiny: Model) -> None:
    # Closures bind late; the hook says which layer it is, so nothing need be bound.
    edits = [(at.resid_post[n], lambda x, hook: x * (2.0 + hook.layer)) for n in range(2)]
    run = tiny.run(PROMPT, edits=edits, capture=[at.resid_post[:], at.resid_mid[1], at.mlp_out[1]])
    plain = tiny.run(PROMPT, capture=[at.resid_post[0]])
    assert equal(run[at.resid_post[0]], plain[at.resid_post[0]] * 2.0)
    assert equal(run[at.resid_post[1]], (run[at.resid_mid[1]] + run[at.mlp_out[1]]) * np.float32(3))


def test_an_edit_may_return_the_same_buffer_each_time(tiny: Model) -> None:
    buffer = np.zeros((2, 5, 24), dtype=np.float32)

    def fill(x: Any, hook: Hook) -> Any:
        buffer[...] = 1.0 + (hook.layer or 0)
        return buffer

    run = tiny.run(PROMPT, edits=[(at.resid_post[:], fill)], capture=[at.resid_post[:]])
    assert (run[at.resid_post[0]] == 1.0).all()
    assert (run[at.resid_post[1]] == 2.0).all()


@pytest.mark.bits
def test_what_was_captured_is_the_callers_to_change(tiny: Model) -> None:
    plain = tiny.run(PROMPT)
    for array in tiny.run(PROMPT, capture=["*"]).cache.values():
        array[...] = 0.0
    assert equal(tiny.run(PROMPT).logits, plain.logits)
    given = np.full((2, 5, 24), 0.5, dtype=np.float32)
    run = tiny.run(PROMPT, edits={at.resid_pre[1]: given}, capture=[at.resid_pre[1]])
    given[...] = 7.0
    assert (run[at.resid_pre[1]] == 0.5).all()


@pytest.mark.bits
def test_runs_inside_hooks_of_runs(tiny: Model) -> None:
    other = [[7, 9, 1, 3, 2], [8, 8, 0, 5, 6]]
    alone = tiny.run(other, capture=[at.z[0]], edits={at.z[1]: lambda x, hook: x * 0.0})

    def patch(x: Any, hook: Hook) -> Any:
        inner = tiny.run(other, capture=[hook.name], edits={at.z[1]: lambda y, h: y * 0.0})
        assert equal(inner.logits, alone.logits)
        assert list(inner.cache) == [at.z[0]]
        return inner[hook.point]

    outer = tiny.run(PROMPT, edits={at.z[0]: patch}, capture=[at.z[:]])
    patched = tiny.run(PROMPT, edits={at.z[0]: alone[at.z[0]]})
    assert equal(outer.logits, patched.logits)
    assert list(outer.cache) == [at.z[0], at.z[1]]


@pytest.mark.bits
def test_a_hook_that_fails_leaves_nothing_behind(tiny: Model) -> None:
    plain = tiny.run(PROMPT).logits

    def fail(x: Any, hook: Hook) -> None:
        x[...] = 0.0
        raise RuntimeError("the user's own")

    with pytest.raises(RuntimeError, match="the user's own"):
        tiny.run(PROMPT, edits={at.resid_pre[1]: fail}, capture=[at.embed])
    run = tiny.run(PROMPT)
    assert equal(run.logits, plain)
    assert len(run.cache) == 0


@pytest.mark.bits
def test_calls_do_not_see_each_other(tiny: Model) -> None:
    plain = tiny.run(PROMPT).logits
    edited = tiny.run(PROMPT, edits={at.embed: lambda x, hook: x * 2.0})
    assert not equal(edited.logits, plain)
    cached = tiny.run(PROMPT, capture=[at.embed])
    again = tiny.run(PROMPT, edits={at.embed: lambda x, hook: x * 2.0})
    assert equal(again.logits, edited.logits)
    assert equal(cached.logits, plain)


@pytest.mark.bits
def test_an_edit_by_glob_reaches_what_it_names(tiny: Model) -> None:
    by_glob = tiny.run(PROMPT, edits={"blocks.*.hook_mlp_out": lambda x, hook: x * 0.0})
    by_span = tiny.run(PROMPT, edits={at.mlp_out[:]: lambda x, hook: x * 0.0})
    by_rule = tiny.run(PROMPT, edits=[(lambda name: name.endswith("hook_mlp_out"), do.scale(0.0))])
    assert equal(by_glob.logits, by_span.logits)
    assert equal(by_rule.logits, by_span.logits)
    assert not equal(by_span.logits, tiny.run(PROMPT).logits)


def test_broad_selectors_pass_over_lazy_points(tiny: Model) -> None:
    for selector in ("blocks.*", lambda name: name.startswith("blocks.")):
        points = list(tiny.run(PROMPT, capture=[selector]).cache)
        assert at.result[0] not in points
        assert len(points) == 48
    assert list(tiny.run(PROMPT, capture=["*hook_result"]).cache) == [at.result[0], at.result[1]]
    assert list(tiny.run(PROMPT, capture=[at.result[:]]).cache) == [at.result[0], at.result[1]]


def test_captures_never_alias_weights(load: Callable[..., Model]) -> None:
    model = load("llama-tied", get_backend("numpy"), "float64")
    run = model.run(PROMPT, capture=[entry.point for entry in model.hook_points])
    weights = [model.params.embed, model.params.unembed, model.params.ln_final.weight]
    for layer in range(model.cfg.n_layers):
        weights += [w[layer] for w in (model.W_Q, model.W_K, model.W_V, model.W_O, model.W_out)]
    for point, array in run.cache.items():
        assert not any(np.may_share_memory(array, weight) for weight in weights), point
