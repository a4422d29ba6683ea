"""What every hook point promises: identities between points, and that looking changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Hook, Model, Run, at, capture
from mi_ref.sites import LayerPoint, Point
from mi_ref.testing import assert_close

Load = Callable[..., Model]

PROMPT = [[40, 12, 5, 14, 19], [39, 21, 4, 16, 28]]


@pytest.fixture
def model(backend: Backend, load: Load) -> Model:
    """Grouped heads and biases everywhere."""
    return load("llama-biases", backend, "float32")


# Also heads that do not fill d_model, a key head per query head, and one for all.
@pytest.fixture(params=["llama-biases", "llama-head-dim", "llama1", "llama3"])
def exact(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


def same(model: Model, a: Any, b: Any) -> bool:
    """Whether two arrays agree in every bit."""
    host = model.backend.to_host
    return bool(np.array_equal(host(a), host(b)))


def everything(model: Model) -> list[Point]:
    return [entry.point for entry in model.hook_points]


def layer_0(model: Model) -> list[Point]:
    """Return one point of every site, for tests that run once per point."""
    return [point for point in everything(model) if point.layer in (0, None)]


def copies(model: Model, run: Run, points: list[Point]) -> dict[Point, Any]:
    """Return captured arrays as new ones, as if they came from elsewhere."""
    host, back = model.backend.to_host, model.backend.from_host
    return {point: back(host(run[point]).copy()) for point in points}


class Checked:
    """All of one run's arrays on the host, to be compared to float64 rounding."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.run = model.run(PROMPT, capture=everything(model))

    def __getitem__(self, key: Point) -> Any:
        return self.model.backend.to_host(self.run[key])

    def weight(self, name: str, layer: int) -> Any:
        return self.model.backend.to_host(getattr(self.model, name)[layer])

    def equal(self, formula: Any, point: Point) -> None:
        assert_close(self.run[point], formula, rel=1e-13, backend=self.model.backend)


def test_identities(exact: Model) -> None:
    run = Checked(exact)
    group = exact.cfg.n_heads // exact.cfg.n_key_value_heads
    run.equal(run[at.embed], at.resid_pre[0])
    for n in range(exact.cfg.n_layers):
        values = np.repeat(run[at.v[n]], group, axis=2)
        run.equal(np.einsum("bhqk,bkhd->bqhd", run[at.pattern[n]], values), at.z[n])
        run.equal(run[at.result[n]].sum(axis=2) + run.weight("b_O", n), at.attn_out_raw[n])
        run.equal(run[at.resid_pre[n]] + run[at.attn_out[n]], at.resid_mid[n])
        run.equal(run[at.resid_mid[n]] + run[at.mlp_out[n]], at.resid_post[n])
        run.equal(run[at.ln1_scale[n]] * run[at.ln1_normalized[n]], at.resid_pre[n])
        run.equal(run[at.ln2_scale[n]] * run[at.ln2_normalized[n]], at.resid_mid[n])
        if n + 1 < exact.cfg.n_layers:
            run.equal(run[at.resid_post[n]], at.resid_pre[n + 1])
    run.equal(run[at.ln_final_scale] * run[at.ln_final_normalized], at.resid_post[n])


def test_weight_views_reproduce_the_projections(exact: Model) -> None:
    run = Checked(exact)
    for n in range(exact.cfg.n_layers):
        read = run[at.attn_in[n]]
        for part, point in (("Q", at.q[n]), ("K", at.k[n]), ("V", at.v[n])):
            product = np.einsum("bpm,hmd->bphd", read, run.weight(f"W_{part}", n))
            run.equal(product + run.weight(f"b_{part}", n), point)
        by_head = np.einsum("bphd,hdm->bphm", run[at.z[n]], run.weight("W_O", n))
        run.equal(by_head, at.result[n])
        read = run[at.mlp_in[n]]
        run.equal(read @ run.weight("W_gate", n) + run.weight("b_gate", n), at.pre[n])
        run.equal(read @ run.weight("W_in", n) + run.weight("b_in", n), at.pre_linear[n])
        run.equal(run[at.post[n]] @ run.weight("W_out", n) + run.weight("b_out", n),
                  at.mlp_out_raw[n])  # fmt: skip
    host = exact.backend.to_host
    run.equal(run[at.unembed_in] @ host(exact.W_U) + host(exact.b_U), at.logits)
    run.equal(host(exact.W_E)[np.array(PROMPT)], at.embed)


def test_weight_views_have_transformer_lens_shapes(exact: Model) -> None:
    cfg = exact.cfg
    per_head = {"Q": cfg.n_heads, "K": cfg.n_key_value_heads, "V": cfg.n_key_value_heads}
    for part, heads in per_head.items():
        shape = (cfg.n_layers, heads, cfg.d_model, cfg.d_head)
        assert getattr(exact, f"W_{part}").shape == getattr(exact, f"W_{part}").stack().shape
        assert getattr(exact, f"W_{part}").shape == shape
        assert getattr(exact, f"b_{part}").shape == (cfg.n_layers, heads, cfg.d_head)
    assert exact.W_O.shape == (cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_model)
    assert exact.W_in.shape == exact.W_gate.shape == (cfg.n_layers, cfg.d_model, cfg.d_mlp)
    assert exact.W_out.shape == (cfg.n_layers, cfg.d_mlp, cfg.d_model)
    assert exact.b_in.shape == exact.b_gate.shape == (cfg.n_layers, cfg.d_mlp)
    assert exact.b_out.shape == exact.b_O.shape == (cfg.n_layers, cfg.d_model)
    assert tuple(exact.W_E.shape) == (cfg.d_vocab, cfg.d_model)
    assert tuple(exact.W_U.shape) == (cfg.d_model, cfg.d_vocab)
    assert same(exact, exact.W_Q[1, 0, ...], exact.W_Q[1][0, ...])
    assert same(exact, exact.W_Q[-1:][0], exact.W_Q[cfg.n_layers - 1])


def test_points_fired_are_points_listed_in_order(model: Model) -> None:
    run = model.run(PROMPT, capture=reversed(everything(model)))
    assert list(run.cache) == everything(model)
    for entry in model.hook_points:
        assert tuple(run[entry.point].shape) == entry.sizes(2, 5)
        assert run[entry.point].dtype == model.dtype


def test_looking_at_everything_changes_no_bit(model: Model) -> None:
    plain = model.run(PROMPT)
    assert same(model, model.run(PROMPT, capture=everything(model)).logits, plain.logits)
    for point in layer_0(model):
        assert same(model, model.run(PROMPT, capture=[point]).logits, plain.logits), point


@pytest.mark.parametrize("form", ["array", "function", "none"])
def test_own_value_put_back_changes_no_bit(form: str, model: Model) -> None:
    run = model.run(PROMPT, capture=everything(model))
    plain = model.run(PROMPT)
    own = copies(model, run, everything(model))
    edits: dict[Any, Any] = {
        "array": own,
        "function": {point: lambda x, hook: x for point in own},
        "none": {point: lambda x, hook: None for point in own},
    }[form]
    assert same(model, model.run(PROMPT, edits=edits).logits, plain.logits)
    for point in layer_0(model):
        edited = model.run(PROMPT, edits={point: edits[point]})
        assert same(model, edited.logits, plain.logits), point


def test_an_edit_at_any_point_reaches_the_logits(model: Model) -> None:
    plain = model.run(PROMPT)
    for point in everything(model):
        edited = model.run(PROMPT, edits={point: lambda x, hook: x * 1.25})
        assert not same(model, edited.logits, plain.logits), point


def test_arrays_given_are_left_as_they_were(model: Model) -> None:
    run = model.run(PROMPT, capture=everything(model))
    given, before = (copies(model, run, everything(model)) for _ in range(2))
    for point in layer_0(model):
        model.run(PROMPT, edits={point: given[point]})
        assert same(model, given[point], before[point]), point
    resid = given[at.resid_pre[0]]
    model.run(resid, start_at_layer=0)
    assert same(model, resid, before[at.resid_pre[0]])


def test_capture_shows_what_flows_on(model: Model) -> None:
    point = at.resid_mid[0]
    plain = model.run(PROMPT, capture=[point, at.resid_post[0]])
    edits = [(point, lambda x, hook: x + 1.0), (point, lambda x, hook: x * 2.0)]
    after = model.run(PROMPT, edits=edits, capture=[point])
    before = model.run(PROMPT, edits=edits, capture=[capture(point, before_edits=True)])
    assert same(model, after[point], (plain[point] + 1.0) * 2.0)
    assert same(model, before[point], plain[point])
    assert same(model, after.logits, before.logits)
    assert not same(model, after.logits, plain.logits)
    swapped = model.run(PROMPT, edits=edits[::-1], capture=[point])
    assert same(model, swapped[point], plain[point] * 2.0 + 1.0)


@pytest.mark.parametrize(
    ("edited", "kept"),
    [
        (at.resid_pre[1], at.resid_post[0]),
        (at.resid_pre[0], at.embed),
        (at.attn_out[0], at.attn_out_raw[0]),
        (at.mlp_out[1], at.mlp_out_raw[1]),
        (at.rot_q[0], at.q[0]),
        (at.pattern[0], at.attn_scores[0]),
        (at.post[0], at.pre[0]),
    ],
)
def test_changing_in_place_spares_other_captures(
    edited: LayerPoint, kept: Point, model: Model
) -> None:
    if model.backend.name == "numpy-readonly":
        pytest.skip("its arrays cannot be changed in place")

    def overwrite(x: Any, hook: Hook) -> None:
        x[...] = 0.5

    plain = model.run(PROMPT, capture=[edited, kept])
    run = model.run(PROMPT, edits={edited: overwrite}, capture=[edited, kept])
    assert same(model, run[kept], plain[kept])
    assert (model.backend.to_host(run[edited]) == 0.5).all()
    assert not same(model, run.logits, plain.logits)
    early = capture(edited, before_edits=True)
    run = model.run(PROMPT, edits={edited: overwrite}, capture=[early])
    assert same(model, run[edited], plain[edited])


def test_one_head_by_result_and_by_z(exact: Model) -> None:
    def drop(x: Any, hook: Hook) -> Any:
        kept = np.ones((1, 1, exact.cfg.n_heads, 1))
        kept[:, :, 1] = 0.0
        return x * exact.backend.from_host(kept)

    by_result = exact.run(PROMPT, edits={at.result[0]: drop}).logits
    by_z = exact.run(PROMPT, edits={at.z[0]: drop}).logits
    assert_close(by_result, exact.backend.to_host(by_z), rel=1e-13, backend=exact.backend)
    assert not same(exact, by_z, exact.run(PROMPT).logits)


def test_an_edited_pattern_may_look_ahead(backend: Backend, load: Load) -> None:
    model = load("llama-yarn", backend, "float64")
    run = model.run([n % 48 for n in range(150)], capture=[at.v[0], at.z[0]],
                    edits={at.pattern[0]: lambda x, hook: x * 0.0 + 1 / 150})  # fmt: skip
    mean = np.mean(backend.to_host(run[at.v[0]]), axis=1, keepdims=True)
    assert_close(run[at.z[0]], mean.repeat(150, 1).repeat(2, 2), rel=1e-13, backend=backend)


def test_a_run_in_two_halves_is_the_whole(model: Model) -> None:
    n_layers = model.cfg.n_layers
    whole = model.run(PROMPT, capture=[at.resid_post[:], at.pattern[-1]])
    assert same(model, whole.resid, whole[at.resid_post[-1]])
    for n in range(n_layers + 1):
        first = model.run(PROMPT, stop_at_layer=n, logits="none")
        second = model.run(first.resid, start_at_layer=n)
        assert same(model, second.logits, whole.logits)
        assert first.logits is None
        assert second.tokens is None
    first = model.run(PROMPT, stop_at_layer=-1, capture=[at.resid_post[:]])
    assert list(first.cache) == [at.resid_post[n] for n in range(n_layers - 1)]
    second = model.run(first.resid, start_at_layer=-1, capture=[at.pattern[-1], at.resid_post[-1]])
    assert same(model, second[at.pattern[-1]], whole[at.pattern[-1]])
    assert same(model, second[at.resid_post[-1]], whole[at.resid_post[-1]])


def test_project_to_vocab_is_the_end_of_the_pass(model: Model) -> None:
    run = model.run(PROMPT, capture=[at.resid_post[-1], at.resid_post[0]])
    assert same(model, model.project_to_vocab(run[at.resid_post[-1]]), run.logits)
    assert not same(model, model.project_to_vocab(run[at.resid_post[0]]), run.logits)


def test_last_and_no_logits(model: Model) -> None:
    everywhere = model.run(PROMPT, capture=[at.unembed_in])
    last = model.run(PROMPT, logits="last", capture=[at.unembed_in, at.logits])
    host = model.backend.to_host
    assert_close(last.logits, host(everywhere.logits)[:, -1:], rel=1e-6, backend=model.backend)
    assert same(model, last[at.unembed_in], everywhere[at.unembed_in])
    assert same(model, last[at.logits], last.logits)
    none = model.run(PROMPT, logits="none")
    assert none.logits is None
    assert same(model, none.resid, everywhere.resid)


def test_rows_of_a_batch_are_runs_of_their_own(model: Model) -> None:
    batch = model.run(PROMPT, capture=everything(model))
    for number, row in enumerate(PROMPT):
        alone = model.run(row, capture=everything(model))
        for point in everything(model):
            desired = model.backend.to_host(batch[point])[number : number + 1]
            assert_close(alone[point], desired, rel=1e-6, backend=model.backend)


@pytest.mark.parametrize("pos", [2, -1, [0, 3], [-2, 1, 1], slice(1, 4), slice(None, None, 2)])
def test_capture_of_some_positions(pos: Any, model: Model) -> None:
    points: list[Point] = [
        at.resid_mid[0],
        at.q[1],
        at.attn_scores[0],
        at.pattern[1],
        at.result[0],
        at.logits,
    ]
    whole = model.run(PROMPT, capture=points)
    run = model.run(PROMPT, capture=[capture(point, pos=pos) for point in points])
    chosen = [pos] if isinstance(pos, int) else pos
    for point in points:
        array = model.backend.to_host(whole[point])
        cut = array[:, :, chosen] if "query_pos" in point.site.axes else array[:, chosen]
        assert_close(run[point], cut, rel=0.0, backend=model.backend)
