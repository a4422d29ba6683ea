"""Edits of attention edges compared with plain NumPy: cut, scaled and set, never a later key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mi_ref import ArgumentError, Backend, Hook, HookError, Model, at, do, get_backend
from mi_ref.config.decoder import Attention
from tests.fixtures.by_hand import host

pytestmark = pytest.mark.usefixtures("as_users_call")

PROMPT = [[30, 12, 5, 14, 19], [39, 21, 4, 16, 28]]
ROWS = [[30, 12, 5], [39, 21, 4, 16, 28]]
CASES = ("llama2", "gemma2", "mistral-window", "gpt2", "qwen3")


def seen(model: Model, edits: Any, layer: int = 0, prompt: Any = PROMPT, **options: Any) -> Any:
    """Return scores and pattern of a layer."""
    points = [at.attn_scores[layer], at.pattern[layer]]
    run = model.run(prompt, capture=points, edits=edits, **options)
    return tuple(host(model, run[point]) for point in points)


def softmax(x: Any) -> Any:
    weights = np.exp(x - x.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, backend: Backend, load: Any) -> Model:
    model: Model = load(request.param, backend, "float64")
    return model


@pytest.fixture
def plain(load: Any) -> Model:
    model: Model = load("llama2", get_backend("numpy"), "float64")
    return model


def direct(edit: Any, x: Any) -> Any:
    """Call an intervention on a given array."""
    n_pos = x.shape[-1]
    hook = Hook("pattern", 0, at.pattern[0], None, n_pos, None, get_backend("numpy"))
    return edit(np.asarray(x, dtype=np.float64), hook)


WHERE: list[tuple[Any, Any, dict[str, Any]]] = [
    (4, 2, {}),
    (-1, [0, 1], {"heads": [1]}),
    (slice(2, None), 1, {"rows": [False, True]}),
    (np.array([3, 4]), np.array([0, -2]), {"heads": np.int64(0), "rows": 1}),
    ([False, False, True, True, True], [True, True, False, False, False], {}),
    ([3, 1], slice(0, 1), {"heads": slice(0, 2)}),
]


def edge_mask(queries: Any, keys: Any, where: dict[str, Any], shape: Any) -> Any:
    mask = np.ones(shape, dtype=bool)
    for axis, chosen in enumerate((where.get("rows"), where.get("heads"), queries, keys)):
        if chosen is not None:
            flags = np.zeros(shape[axis], dtype=bool)
            flags[np.asarray(chosen) if isinstance(chosen, list) else chosen] = True
            mask &= flags.reshape([-1 if n == axis else 1 for n in range(4)])
    return mask


@pytest.mark.bits
@pytest.mark.parametrize(("queries", "keys", "where"), WHERE)
def test_cut_edges_leave_a_softmax_over_the_others(
    queries: Any, keys: Any, where: dict[str, Any], exact: Model
) -> None:
    before, _ = seen(exact, [])
    scores, pattern = seen(exact, [(at.attn_scores[0], do.knockout(queries, keys, **where))])
    mask = edge_mask(queries, keys, where, before.shape)
    wanted = np.where(mask, -np.inf, before)
    np.testing.assert_array_equal(scores, wanted)
    np.testing.assert_allclose(pattern, softmax(wanted), rtol=1e-12, atol=1e-15)
    assert (pattern[mask] == 0).all()


@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize(("queries", "keys", "where"), WHERE)
def test_scaled_edges(
    queries: Any, keys: Any, where: dict[str, Any], renormalise: bool, exact: Model
) -> None:
    _, before = seen(exact, [])
    edit = do.scale_pattern(2.5, queries, keys, renormalise=renormalise, **where)
    _, pattern = seen(exact, [(at.pattern[0], edit)])
    mask = edge_mask(queries, keys, where, before.shape)
    wanted = np.where(mask, 2.5 * before, before)
    if renormalise:
        wanted = np.where(mask.any(-1, keepdims=True), wanted / wanted.sum(-1, keepdims=True),
                          before)  # fmt: skip
    np.testing.assert_allclose(pattern, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", CASES)
def test_set_value_gives_no_weight_to_future_tokens(case: str, backend: Backend, load: Any) -> None:
    """candle-mi's SetValue shares the rest among all columns, including masked later ones."""
    model: Model = load(case, backend, "float64")
    scores, before = seen(model, [])
    edit = do.set_pattern(0.125, slice(2, None), [1, 2])
    _, after = seen(model, [(at.pattern[0], edit)])
    hidden = scores == -np.inf
    assert hidden.any()
    assert (after[hidden] == 0).all()
    np.testing.assert_allclose(after.sum(axis=-1), 1.0, rtol=1e-12)
    meant = edge_mask(slice(2, None), [1, 2], {}, before.shape) & ~hidden
    np.testing.assert_array_equal(after[meant], 0.125)
    # The others keep their proportions.
    others = ~meant & ~hidden
    rows = meant.any(axis=-1)
    share = np.where(others, before, 0)
    taken = 0.125 * meant.sum(-1, keepdims=True)
    wanted = share / share.sum(-1, keepdims=True) * (1 - taken)
    np.testing.assert_allclose(after[rows][others[rows]], wanted[rows][others[rows]], rtol=1e-12)
    np.testing.assert_array_equal(after[~rows], before[~rows])


@pytest.mark.bits
@pytest.mark.parametrize("edit", [do.scale_pattern(7.0, 2, [1, 4]), do.set_pattern(0.5, 2, 1)])
def test_an_edit_of_one_query_cannot_change_earlier_tokens(edit: Any, exact: Model) -> None:
    plain_run = exact.run(PROMPT)
    edited = exact.run(PROMPT, edits=[(at.pattern[:], edit)])
    a, b = host(exact, plain_run.logits), host(exact, edited.logits)
    np.testing.assert_array_equal(a[:, :2], b[:, :2])
    assert not np.array_equal(a[:, 2], b[:, 2])


def test_knockout_is_after_the_soft_cap(backend: Backend, load: Any) -> None:
    """candle-mi cuts before Gemma 2's cap, which makes minus infinity finite: weight stays."""
    model: Model = load("gemma2", backend, "float64")
    attn = model.cfg.layers[0].mixer
    assert isinstance(attn, Attention)
    assert attn.softcap is not None
    before, pattern = seen(model, [])
    assert np.abs(before[np.isfinite(before)]).max() <= attn.softcap
    _, after = seen(model, [(at.attn_scores[0], do.knockout(4, 3))])
    assert (after[:, :, 4, 3] == 0.0).all()
    leak = np.exp(-attn.softcap - before[:, :, 4].max())
    assert leak > 1e-3
    others = [0, 1, 2, 4]
    wanted = pattern[:, :, 4][..., others]
    wanted = wanted / wanted.sum(-1, keepdims=True)
    np.testing.assert_allclose(after[:, :, 4][..., others], wanted, rtol=1e-12)


def test_beyond_a_window_there_is_nothing_to_cut(backend: Backend, load: Any) -> None:
    model: Model = load("mistral-window", backend, "float64")
    attn = model.cfg.layers[0].mixer
    assert isinstance(attn, Attention)
    window = attn.window
    assert window is not None
    prompt = [list(range(1, window + 4))]
    scores, before = seen(model, [], prompt=prompt)
    last = len(prompt[0]) - 1
    assert (scores[0, :, last, 0] == -np.inf).all()
    for edit in (do.set_pattern(0.5, last, 0), do.scale_pattern(9.0, last, 0)):
        _, after = seen(model, [(at.pattern[0], edit)], prompt=prompt)
        np.testing.assert_allclose(after, before, rtol=1e-15)
    cut = do.knockout(last, slice(last - window + 1, None))
    with pytest.raises(HookError, match="leaves a query without any key to look at"):
        model.run(prompt, edits=[(at.attn_scores[0], cut)])


@pytest.mark.parametrize("side", ["left", "right"])
def test_padded_rows_are_edited_as_they_would_be_alone(side: Any, exact: Model) -> None:
    start = 2 if side == "left" else 0
    edits = [(at.attn_scores[:], do.knockout(start + 2, start + 1, rows=0)),
             (at.pattern[:], do.scale_pattern(3.0, start + 2, start, rows=[0]))]  # fmt: skip
    alone = [(at.attn_scores[:], do.knockout(2, 1)), (at.pattern[:], do.scale_pattern(3.0, 2, 0))]
    batch = exact.run(ROWS, edits=edits, padding_side=side)
    for row, changes in ((0, alone), (1, [])):
        single = exact.run([ROWS[row]], edits=changes)
        a, b = (host(exact, run.logits_at(-1, n)) for run, n in ((batch, row), (single, 0)))
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_a_query_that_sees_nothing_is_an_error(plain: Model) -> None:
    """candle-mi's ``to_position(0)`` leaves the first row without a key, and all of it NaN."""
    for cut in (do.knockout(None, 0), do.knockout(3), do.knockout([0, 4], slice(0, 1))):
        with pytest.raises(HookError, match=r"without any key to look at.*do\.zero\(\) at at\.z"):
            plain.run(PROMPT, edits=[(at.attn_scores[0], cut)])
    two = [(at.attn_scores[0], do.knockout(1, 0)), (at.attn_scores[0], do.knockout(1, 1))]
    with pytest.raises(HookError, match="without any key"):
        plain.run(PROMPT, edits=two)
    run = plain.run(PROMPT, edits=[(at.attn_scores[0], do.knockout(slice(1, None), 0))])
    assert np.isfinite(host(plain, run.logits)).all()


@pytest.mark.parametrize(
    ("point", "edit", "message"),
    [
        (
            at.pattern[0],
            do.knockout(3, 1),
            r"expected at\.attn_scores\. A knockout cuts edges",
        ),
        (
            at.z[0],
            do.scale_pattern(2.0, 3, 1),
            r"a site with edges, at\.attn_scores or at\.pattern",
        ),
        (at.pattern[0], do.scale_pattern(2.0, 5, 1), r"positions \[5\] of 5"),
        (at.pattern[0], do.scale_pattern(2.0, 4, 5), r"keys \[5\] of 5"),
        (at.pattern[0], do.scale_pattern(2.0, 4, []), r"selects none of its 5 keys"),
        (at.pattern[0], do.scale_pattern(2.0, keys=[True]), r"keys are a mask of 1 for 5"),
        (at.pattern[0], do.set_pattern(0.6, 3, [0, 1]), r"weights of a row sum to more than one"),
        (at.pattern[0], do.set_pattern(0.1, 3), r"leaves a row without weight to distribute"),
        (at.pattern[0], do.scale_pattern(0.0, 3), r"leaves a row without weight to distribute"),
    ],
)
def test_what_cannot_be_is_refused(point: Any, edit: Any, message: str, plain: Model) -> None:
    with pytest.raises(HookError, match=message):
        plain.run(PROMPT, edits=[(point, edit)])


@pytest.mark.parametrize("keys", [1.5, "0", [0, "a"], True, [True, 2]])
def test_keys_that_are_none_are_refused(keys: Any) -> None:
    with pytest.raises(ArgumentError, match=r"keys=.*(expected an index, a slice|mixes indices)"):
        do.knockout(3, keys)


def test_uniform_rows() -> None:
    """Section 12, case 4: numbers that candle-mi's tests have too."""
    uniform = np.full((1, 1, 4, 4), 0.25)
    scaled = direct(do.scale_pattern(2.0, 2, 1), uniform)
    np.testing.assert_allclose(scaled[0, 0, 2], [0.2, 0.4, 0.2, 0.2], rtol=1e-15)
    np.testing.assert_array_equal(scaled[0, 0, [0, 1, 3]], 0.25)
    given = direct(do.set_pattern(0.5, 2, 1), uniform)
    np.testing.assert_allclose(given[0, 0, 2], [1 / 6, 0.5, 1 / 6, 1 / 6], rtol=1e-15)


def test_edges_of_two_knockouts() -> None:
    """Section 12, case 4: all keys of query 2 and one of query 1 are five edges; flat indices."""
    zeros = np.zeros((1, 2, 4, 4))
    with pytest.raises(HookError, match="without any key"):
        direct(do.knockout(2), zeros)
    edits = [do.scale_pattern(3.0, 2, renormalise=False), do.scale_pattern(3.0, 1, 0)]
    marked = sum(edit.edges(zeros, _hook()).astype(int) for edit in edits)
    assert marked[0, 0].sum() == 5
    cut = direct(do.knockout(2, 1, heads=0), zeros).ravel()
    assert cut[9] == -np.inf
    assert cut[25] == 0
    assert np.isinf(cut).sum() == 1


def _hook() -> Hook:
    return Hook("pattern", 0, at.pattern[0], None, 4, None, get_backend("numpy"))


def test_an_edge_named_twice_is_scaled_once() -> None:
    """candle-mi multiplies a duplicate edge twice."""
    uniform = np.full((1, 1, 4, 4), 0.25)
    once, twice = (direct(do.scale_pattern(2.0, q, [1]), uniform) for q in ([2], [2, 2]))
    np.testing.assert_array_equal(once, twice)
