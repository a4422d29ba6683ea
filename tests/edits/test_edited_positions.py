"""Values with an entry for each position, and positions of batches that hold pads."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, HookError, Model, at, do
from mi_ref.hooks.sites import Point
from tests.fixtures.by_hand import host

pytestmark = pytest.mark.usefixtures("as_users_call")

PROMPT = [[30, 12, 5, 14, 19], [39, 21, 4, 16, 28], [7, 7, 1, 0, 2]]
RAGGED = [[30, 12, 5, 14, 19], [39, 21, 4]]
RNG = np.random.default_rng(3)


@pytest.fixture
def model(backend: Backend, load: Any) -> Model:
    loaded: Model = load("llama2", backend, "float64")
    return loaded


def changed(model: Model, edits: Any, point: Point) -> tuple[Any, Any]:
    before = model.run(PROMPT, capture=[point])
    after = model.run(PROMPT, capture=[point], edits=edits)
    return host(model, before[point]), host(model, after[point])


def test_a_value_may_have_one_entry_for_each_position(model: Model) -> None:
    point = at.z[1]
    x, _ = changed(model, [], point)
    value = RNG.normal(size=(2, *x.shape[2:]))
    for positions in ([3, 1], [-2, 1], [False, True, False, True, False], slice(1, 4, 2)):
        order = [1, 0] if positions in ([3, 1], [-2, 1]) else [0, 1]
        for given in (value, value.tolist(), np.broadcast_to(value, (3, *value.shape))):
            edits = [(point, do.replace(given, positions=positions))]
            _, after = changed(model, edits, point)
            np.testing.assert_array_equal(after[:, [1, 3]], np.stack([value[order]] * 3))
            np.testing.assert_array_equal(after[:, [0, 2, 4]], x[:, [0, 2, 4]])
    _, after = changed(model, [(point, do.add(value, positions=[3, 1], scale=2.0))], point)
    np.testing.assert_allclose(after[:, 3], x[:, 3] + 2 * value[0], rtol=1e-13)


def test_a_pattern_may_have_one_row_for_each_query(model: Model) -> None:
    point = at.pattern[1]
    x, _ = changed(model, [], point)
    value = RNG.random(size=(2, x.shape[-1]))
    _, after = changed(model, [(point, do.replace(value, positions=[3, 1], heads=0))], point)
    np.testing.assert_array_equal(after[:, 0, 3], np.stack([value[0]] * 3))
    np.testing.assert_array_equal(after[:, 0, 1], np.stack([value[1]] * 3))
    np.testing.assert_array_equal(after[:, 1:], x[:, 1:])
    np.testing.assert_array_equal(after[:, 0, [0, 2, 4]], x[:, 0, [0, 2, 4]])


def test_a_value_of_the_state_may_have_one_entry_for_each_position(
    backend: Backend, load: Any
) -> None:
    model: Model = load("rwkv7", backend, "float64")
    point = at.rwkv_state[2]
    x, _ = changed(model, [], point)
    value = RNG.normal(size=(2, *x.shape[2:]))
    _, after = changed(model, [(point, do.replace(value, positions=[3, 1]))], point)
    np.testing.assert_array_equal(after[:, 3], np.stack([value[0]] * 3))
    np.testing.assert_array_equal(after[:, 1], np.stack([value[1]] * 3))


@pytest.mark.parametrize(
    ("edit", "side"),
    [
        ((at.z[1], do.zero(positions=-1)), "right"),
        ((at.z[1], do.zero(positions=[3, 4], rows=1)), "right"),
        ((at.resid_pre[0], do.add(1.0, positions=0)), "left"),
        ((at.attn_scores[0], do.knockout(queries=4, keys=0)), "right"),
    ],
)
def test_positions_that_are_pads_alone_are_refused(model: Model, edit: Any, side: Any) -> None:
    """The last column is not a shorter row's last token: its edit would be lost silently."""
    said = r"nothing but pads there: row 1 has its tokens in [02] to [24]\. Pad on the other side"
    with pytest.raises(HookError, match=said):
        model.run(RAGGED, edits=[edit], padding_side=side)
    model.run(RAGGED, edits=[edit], padding_side="left" if side == "right" else "right")


@pytest.mark.parametrize(
    "where",
    [
        {"positions": slice(3, None)},
        {"positions": [False, False, False, True, True]},
        {"positions": [-1, 1]},
        {"positions": 4, "rows": 0},
        {},
    ],
)
def test_places_that_some_row_has_are_not(model: Model, where: Any) -> None:
    point = at.z[1]
    run = model.run(RAGGED, capture=[point], edits=[(point, do.fill(7.0, **where))])
    assert (host(model, run[point])[0] == 7.0).any()


@pytest.mark.parametrize("point", [at.z[1], at.pattern[0]])
def test_an_edit_of_pads_changes_nothing_to_a_guard(model: Model, point: Any) -> None:
    edit = do.fill(0.5, positions=slice(3, None), rows=1)
    with pytest.raises(HookError, match="changed no value where it acts"):
        model.run(RAGGED, edits=[(point, edit)], check_edits=True)
    model.run(RAGGED, edits=[(point, do.fill(0.5, positions=slice(2, None), rows=1))],
              check_edits=True)  # fmt: skip
