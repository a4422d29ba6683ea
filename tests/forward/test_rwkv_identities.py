"""Identities between RWKV's hook points, with and without edits, pads and an initial state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Hook, Model, Run, at, capture, get_backend
from mi_ref.hooks.sites import Point
from mi_ref.testing import assert_close, relative_error
from tests.fixtures.model_points import editable, everything
from tests.fixtures.rwkv_formulas import Pass, by_token
from tests.fixtures.rwkv_models import (
    BOUND,
    CASES,
    PROMPT,
    ROWS,
    SIDES,
    handed,
    same_state,
    state_of,
    times,
    uneven,
)

Load = Callable[..., Model]


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


@pytest.fixture(params=CASES)
def single(request: pytest.FixtureRequest, load: Load) -> Model:
    """The same on NumPy alone, in single precision, for comparisons of bits."""
    return load(request.param, get_backend("numpy"), "float32")


def some(model: Model) -> list[Point]:
    """Return the points of the last layer but one and of none, and layer 0's values.

    On NumPy's variants, which are slow, a few of them.
    """
    wanted = (None, model.cfg.n_layers - 2)
    points = [x for x in everything(model) if x.layer in wanted or x == at.rwkv_v[0]]
    return points[:: 1 if model.backend.name == "numpy" else 11]


def recurrence(run: Pass, n: int) -> tuple[Any, Any]:
    """Return the result of the plain loop on a layer's captured terms."""
    return by_token(
        run[at.rwkv_r[n]], run[at.rwkv_decay[n]], run[at.rwkv_write[n]], run.removal(n),
        run.start(n), 0.0 if run.is_7(n) else run[at.rwkv_bonus[n]],
    )  # fmt: skip


@pytest.mark.parametrize("begins", ["at nothing", "from a state"])
def test_every_point_is_what_its_formula_says(begins: str, exact: Model) -> None:
    state = None if begins == "at nothing" else handed(exact, 2)
    run = Pass(exact, PROMPT, state=state)
    seen: list[Point] = [at.embed]
    for point, formula in run.formulas():
        assert_close(run.run[point], formula, rel=1e-13, backend=exact.backend)
        seen.append(point)
    for n in range(exact.cfg.n_layers):
        reads, states = recurrence(run, n)
        assert relative_error(run[at.rwkv_wkv[n]], reads) <= BOUND
        assert relative_error(run[at.rwkv_state[n]], states) <= BOUND
        seen.append(at.rwkv_effective_attn[n])
    assert set(seen) == set(everything(exact))


def test_an_edit_acts_where_it_is_made_and_is_read_by_what_follows(exact: Model) -> None:
    state = handed(exact, 2)
    plain = Pass(exact, PROMPT, state=state)
    for edited in some(exact):
        if edited not in editable(exact):
            continue
        factors = uneven(plain[edited].shape)
        run = Pass(exact, PROMPT, state=state, edits={edited: times(factors, exact)})
        if edited == at.embed:
            assert relative_error(run[edited], plain[edited] * factors) <= BOUND
        for point, formula in run.formulas():
            wanted = formula * factors if point == edited else formula
            assert relative_error(run[point], wanted) <= BOUND, (edited, point)
        assert relative_error(run[at.logits], plain[at.logits]) > 1e-6, edited


def test_all_that_runs_through_the_recurrence_edited_at_once(exact: Model) -> None:
    """Against the plain loop; factors are negative, and so are decays then."""
    state, n = handed(exact, 2), exact.cfg.n_layers - 1
    plain = Pass(exact, PROMPT, state=state)
    sites = [at.rwkv_r, at.rwkv_k, at.rwkv_v, at.rwkv_decay, at.rwkv_bonus, at.rwkv_write]
    sites += [at.rwkv_a, at.rwkv_kk] if plain.is_7(n) else []
    edits = {
        site[n]: times(-uneven(plain[site[n]].shape, seed), exact)
        for seed, site in enumerate(sites)
    }
    run = Pass(exact, PROMPT, state=state, edits=edits)
    reads, states = recurrence(run, n)
    assert relative_error(run[at.rwkv_wkv[n]], reads) <= BOUND
    assert relative_error(run[at.rwkv_state[n]], states) <= BOUND
    assert relative_error(run.host(state_of(run.run)[n].wkv), states[:, -1]) <= BOUND
    assert relative_error(run[at.rwkv_wkv[n]], plain[at.rwkv_wkv[n]]) > 0.1


@pytest.mark.bits
@pytest.mark.parametrize("side", SIDES)
def test_looking_and_putting_back_change_no_bit(side: Any, single: Model) -> None:
    """In a padded batch that continues from a state."""
    options: Any = {"state": handed(single, 3), "padding_side": side}
    plain = single.run(ROWS, **options)
    looked = single.run(ROWS, capture=everything(single), **options)
    own: dict[Any, Any] = {point: np.array(looked[point]) for point in editable(single)}

    def unchanged(what: str, run: Run) -> None:
        assert run.logits is not None
        assert plain.logits is not None
        assert np.array_equal(run.logits, plain.logits), what
        same_state(run, plain, what)

    unchanged("everything captured", looked)
    unchanged("all put back", single.run(ROWS, edits=own, **options))
    nothing: dict[Any, Any] = {point: lambda x, hook: None for point in own}
    unchanged("all by functions", single.run(ROWS, edits=nothing, **options))
    for point in some(single):
        unchanged(f"look at {point!r}", single.run(ROWS, capture=[point], **options))
        if point in own:
            forms: list[Any] = [own[point], lambda x, hook: x]
            for edit in forms:
                unchanged(f"put back {point!r}", single.run(ROWS, edits={point: edit}, **options))


@pytest.mark.bits
@pytest.mark.parametrize("side", SIDES)
def test_edits_at_pads_change_no_token(side: Any, single: Model) -> None:
    options: Any = {"state": handed(single, 3), "padding_side": side}
    plain = single.run(ROWS, **options)
    there = plain.attention_mask

    def spoil(x: Any, hook: Hook) -> Any:
        pads = ~there if hook.pos is None else ~there[:, hook.pos : hook.pos + 1]
        return np.where(pads.reshape(*pads.shape, *[1] * (x.ndim - 2)), x * -3 + 1, x)

    for point in editable(single):
        if point not in some(single):
            continue
        run = single.run(ROWS, edits={point: spoil}, capture=[point], **options)
        assert (run[point][~there] != 0).any(), "the edit did nothing"
        assert np.array_equal(run.logits[there], plain.logits[there]), point  # type: ignore[index]
        same_state(run, plain, repr(point))


@pytest.mark.bits
def test_an_edit_of_one_head_and_row_spares_every_bit_of_the_others(single: Model) -> None:
    """Without changes, the read is that of the recurrence."""
    n = single.cfg.n_layers - 1

    def one(x: Any, hook: Hook) -> None:
        if hook.pos in (None, 5):
            x[1, 5 if hook.pos is None else 0, 1] *= -2.0

    plain = single.run(PROMPT, capture=[at.rwkv_wkv[n]])
    for site in (at.rwkv_write, at.rwkv_state):
        run = single.run(PROMPT, capture=[at.rwkv_wkv[n]], edits={site[n]: one})
        same = (run[at.rwkv_wkv[n]] == plain[at.rwkv_wkv[n]]).all(axis=-1)
        changed = ~same
        first = 5 if Pass(single, PROMPT).is_7(n) else 6
        assert changed[1, first:, 1].all()
        changed[1, first:, 1] = False
        assert not changed.any(), site


@pytest.mark.bits
def test_what_a_knockout_leaves_is_not_lost_in_rounding(single: Model) -> None:
    """A write ten thousand times the others is removed without a difference of large numbers."""
    n = single.cfg.n_layers - 1

    def loud(x: Any, hook: Hook) -> None:
        x[:, 3] *= 1e4

    def drop(x: Any, hook: Hook) -> None:
        x[:, 3] = 0.0

    run = Pass(single, PROMPT, edits={at.rwkv_v[n]: loud, at.rwkv_write[n]: drop})
    run.arrays = {point: array.astype("float64") for point, array in run.arrays.items()}
    reads, states = recurrence(run, n)
    assert relative_error(run[at.rwkv_wkv[n]][:, 4:], reads[:, 4:]) <= 5e-6
    assert relative_error(run[at.rwkv_state[n]], states) <= 5e-6
    everywhere = single.run(
        PROMPT, capture=[at.rwkv_wkv[n], at.rwkv_bonus[n], at.rwkv_effective_attn[n]],
        edits={at.rwkv_write[n]: lambda x, hook: x * 0},
    )  # fmt: skip
    left = np.zeros_like(reads) if run.is_7(n) else everywhere[at.rwkv_bonus[n]]
    assert np.array_equal(everywhere[at.rwkv_wkv[n]], left)
    assert not np.tril(everywhere[at.rwkv_effective_attn[n]], -1).any()


def test_an_edit_of_the_state_is_told_its_position(exact: Model) -> None:
    told: list[tuple[Any, ...]] = []

    def listen(x: Any, hook: Hook) -> None:
        told.append((hook.name, hook.layer, hook.pos, hook.n_pos, hook.backend, tuple(x.shape)))

    d, heads = exact.cfg.d_head, exact.cfg.n_heads
    exact.run(PROMPT, edits={at.rwkv_state[1]: listen, at.rwkv_write[0]: listen})
    assert told[0] == (
        "blocks.0.rwkv.hook_write", 0, None, 19, exact.backend, (2, 19, heads, d, d)
    )  # fmt: skip
    assert told[1:] == [
        ("blocks.1.rwkv.hook_state", 1, pos, 19, exact.backend, (2, 1, heads, d, d))
        for pos in range(19)
    ]


@pytest.mark.bits
def test_capture_of_some_positions(exact: Model) -> None:
    sites = (at.rwkv_state, at.rwkv_write, at.rwkv_wkv, at.rwkv_effective_attn, at.rwkv_shift)
    edits = [(at.rwkv_state[0], lambda x, hook: x * 1.25)]
    whole = exact.run(PROMPT, capture=[site[0] for site in sites], edits=edits)
    some_positions: list[Any] = [2, -1, [0, 3], [-2, 1, 1], slice(1, 4), slice(None, None, 7)]
    for pos in some_positions:
        run = exact.run(PROMPT, capture=[capture(site[0], pos=pos) for site in sites], edits=edits)
        chosen = [pos] if isinstance(pos, int) else pos
        for site in sites:
            array = exact.backend.to_host(whole[site[0]])
            cut = array[:, :, chosen] if "query_pos" in site.axes else array[:, chosen]
            assert_close(run[site[0]], cut, rel=0.0, backend=exact.backend)
        early = capture(at.rwkv_state[0], pos=pos, before_edits=True)
        before = exact.run(PROMPT, capture=[early], edits=edits)[at.rwkv_state[0]]
        cut = exact.backend.to_host(whole[at.rwkv_state[0]])[:, chosen] / 1.25
        assert_close(before, cut, rel=1e-13, backend=exact.backend)
