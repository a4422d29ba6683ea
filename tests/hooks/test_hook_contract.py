"""What every hook point promises: it fires, looking changes nothing, edits reach the logits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Hook, Model, Run, at, capture
from mi_ref.hooks.sites import LayerPoint, Point
from mi_ref.testing import assert_close, relative_error
from tests.fixtures.model_points import editable, everything

Load = Callable[..., Model]

PROMPT = [[37, 12, 5, 14, 19], [38, 21, 4, 16, 28]]


@pytest.fixture
def model(backend: Backend, load: Load) -> Model:
    """Grouped heads and biases everywhere."""
    return load("llama-biases", backend, "float32")


STRUCTURES = (
    "llama-biases", "gemma2", "gemma3", "gpt-neox-parallel", "gpt2", "mixtral", "olmo2", "phi",
    "phi-qk-norm", "phi4-mini", "qwen3-moe", "rwkv6", "rwkv7", "starcoder2-window",
)  # fmt: skip


@pytest.fixture(params=STRUCTURES)
def structure(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    """Every kind of block."""
    return load(request.param, backend, "float32")


def same(model: Model, a: Any, b: Any) -> bool:
    """Whether two arrays agree in every bit."""
    host = model.backend.to_host
    return bool(np.array_equal(host(a), host(b)))


def each(model: Model, points: list[Point]) -> list[Point]:
    """Return `points`, for tests that run once per point; a few of them on NumPy's variants.

    There one run with all points has to show the differences.
    """
    variant = model.backend.name in ("numpy-readonly", "numpy-frozen-inputs", "array-api-strict")
    return points[:: 17 if variant else 1]


def copies(model: Model, run: Run, points: list[Point]) -> dict[Point, Any]:
    """Return captured arrays as new ones, as if they came from elsewhere."""
    host, back = model.backend.to_host, model.backend.from_host
    return {point: back(host(run[point]).copy()) for point in points}


def test_points_fired_are_points_listed_in_order(structure: Model) -> None:
    model = structure
    run = model.run(PROMPT, capture=reversed(everything(model)))
    assert list(run.cache) == everything(model)
    for entry in model.hook_points:
        assert tuple(run[entry.point].shape) == entry.sizes(2, 5)
        assert run[entry.point].dtype == model.dtype


@pytest.mark.bits
def test_looking_at_everything_changes_no_bit(structure: Model) -> None:
    model = structure
    plain = model.run(PROMPT)
    assert same(model, model.run(PROMPT, capture=everything(model)).logits, plain.logits)
    for point in each(model, everything(model)):
        assert same(model, model.run(PROMPT, capture=[point]).logits, plain.logits), point


@pytest.mark.bits
@pytest.mark.parametrize("form", ["array", "function", "none"])
def test_own_value_put_back_changes_no_bit(form: str, structure: Model) -> None:
    model = structure
    own = copies(model, model.run(PROMPT, capture=everything(model)), editable(model))
    plain = model.run(PROMPT)
    edits: dict[Any, Any] = {
        "array": own,
        "function": {point: lambda x, hook: x for point in own},
        "none": {point: lambda x, hook: None for point in own},
    }[form]
    assert same(model, model.run(PROMPT, edits=edits).logits, plain.logits)
    for point in each(model, editable(model)):
        edited = model.run(PROMPT, edits={point: edits[point]})
        assert same(model, edited.logits, plain.logits), point


def test_the_pass_never_writes_over_what_a_hook_or_a_capture_holds(structure: Model) -> None:
    model, held = structure, {}
    copied: dict[Point, Any] = {}

    def hold(x: Any, hook: Hook) -> None:
        held[hook.point] = x
        copied.setdefault(hook.point, model.backend.to_host(x).copy())

    # A hook gets the state position by position.
    points = [point for point in editable(model) if point.site is not at.rwkv_state]
    model.run(PROMPT, edits=dict.fromkeys(points, hold))
    whole = model.run(PROMPT, capture=points)
    for point in points:
        assert same(model, held[point], copied[point]), point
        assert same(model, whole[point], copied[point]), point
    for point in each(model, points):
        model.run(PROMPT, edits={point: hold})
        assert same(model, held[point], copied[point]), point
        assert same(model, model.run(PROMPT, capture=[point])[point], copied[point]), point


def test_an_edit_at_any_point_reaches_the_logits(structure: Model) -> None:
    model = structure
    host, back = model.backend.to_host, model.backend.from_host
    plain = host(model.run(PROMPT).logits)

    def stretch(x: Any, hook: Hook) -> Any:
        # Not by one factor: norms and softmax would hide a multiple or a sum.
        rows, columns = (
            np.linspace(1.0, 2.0, n, dtype=np.float32) for n in x.shape[1 :: x.ndim - 2]
        )
        return x * back(rows.reshape(-1, *[1] * (x.ndim - 2)) * columns[::-1])

    for point in each(model, editable(model)):
        edited = model.run(PROMPT, edits={point: stretch})
        assert relative_error(host(edited.logits), plain) > 1e-4, point


def test_arrays_given_are_left_as_they_were(structure: Model) -> None:
    model = structure
    run = model.run(PROMPT, capture=everything(model))
    given, before = (copies(model, run, everything(model)) for _ in range(2))
    for point in each(model, editable(model)):
        model.run(PROMPT, edits={point: given[point]})
        assert same(model, given[point], before[point]), point
    resid = given[at.resid_pre[0]]
    model.run(resid, start_at_layer=0)
    assert same(model, resid, before[at.resid_pre[0]])


@pytest.mark.bits
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


@pytest.mark.bits
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


def test_an_edited_pattern_may_look_ahead(backend: Backend, load: Load) -> None:
    model = load("llama-yarn", backend, "float64")
    run = model.run([n % 48 for n in range(150)], capture=[at.v[0], at.z[0]],
                    edits={at.pattern[0]: lambda x, hook: x * 0.0 + 1 / 150})  # fmt: skip
    mean = np.mean(backend.to_host(run[at.v[0]]), axis=1, keepdims=True)
    assert_close(run[at.z[0]], mean.repeat(150, 1).repeat(2, 2), rel=1e-13, backend=backend)


@pytest.mark.bits
def test_a_run_in_two_halves_is_the_whole(structure: Model) -> None:
    model = structure
    n_layers = model.cfg.n_layers
    mixed = at.rwkv_wkv[-1] if model.cfg.recurrent else at.pattern[-1]
    whole = model.run(PROMPT, capture=[at.resid_post[:], mixed])
    assert same(model, whole.resid, whole[at.resid_post[-1]])
    for n in range(n_layers + 1):
        first = model.run(PROMPT, stop_at_layer=n, logits="none")
        # A residual stream is all that a transformer's layers read of those before; a recurrent
        # one may read more, which the run has.
        for handed in (first,) if model.cfg.recurrent else (first, first.resid):
            second = model.run(handed, start_at_layer=n)
            assert same(model, second.logits, whole.logits)
            assert second.tokens is None
        assert first.logits is None
    first = model.run(PROMPT, stop_at_layer=-1, capture=[at.resid_post[:]])
    assert list(first.cache) == [at.resid_post[n] for n in range(n_layers - 1)]
    second = model.run(first, start_at_layer=-1, capture=[mixed, at.resid_post[-1]])
    assert same(model, second[mixed], whole[mixed])
    assert same(model, second[at.resid_post[-1]], whole[at.resid_post[-1]])


@pytest.mark.bits
def test_project_to_vocab_is_the_end_of_the_pass(structure: Model) -> None:
    model = structure
    run = model.run(PROMPT, capture=[at.resid_post[-1], at.resid_post[0]])
    assert same(model, model.project_to_vocab(run[at.resid_post[-1]]), run.logits)
    assert not same(model, model.project_to_vocab(run[at.resid_post[0]]), run.logits)


@pytest.mark.bits
def test_last_and_no_logits(structure: Model) -> None:
    model = structure
    everywhere = model.run(PROMPT, capture=[at.unembed_in])
    last = model.run(PROMPT, logits="last", capture=[at.unembed_in, at.logits])
    host = model.backend.to_host
    assert_close(last.logits, host(everywhere.logits)[:, -1:], rel=1e-6, backend=model.backend)
    assert same(model, last[at.unembed_in], everywhere[at.unembed_in])
    if model.cfg.softcap is None:
        assert same(model, last[at.logits], last.logits)
    assert last[at.logits].shape == (2, 1, model.cfg.d_vocab)
    none = model.run(PROMPT, logits="none")
    assert none.logits is None
    assert same(model, none.resid, everywhere.resid)


@pytest.mark.parametrize("case", STRUCTURES)
def test_rows_of_a_batch_are_runs_of_their_own(case: str, backend: Backend, load: Load) -> None:
    model = load(case, backend, "float64")
    batch = model.run(PROMPT, capture=everything(model))
    for number, row in enumerate(PROMPT):
        alone = model.run(row, capture=everything(model))
        for point in everything(model):
            desired = model.backend.to_host(batch[point])[number : number + 1]
            assert_close(alone[point], desired, rel=1e-13, backend=model.backend)


@pytest.mark.bits
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
