"""Effective attention, and the effect of an edit of the state on later tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Hook, HookError, Model, at
from mi_ref.testing import relative_error
from tests.fixtures.model_points import everything
from tests.fixtures.rwkv_formulas import Pass, by_token
from tests.fixtures.rwkv_models import (
    BOUND,
    CASES,
    PROMPT,
    ROWS,
    SIDES,
    handed,
    state_of,
    uneven,
)

Load = Callable[..., Model]

SCALES: dict[str, dict[int, float]] = {
    "nothing": {},
    "a write": {5: -1.5},
    "every write": dict.fromkeys(range(19), 0.0),
    "the bonus": {3: 2.0, 7: 0.0},
}


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


def scale(model: Model, pos: int, factor: float, head: int | None = None) -> Any:
    """Return an edit that multiplies the value at one position."""

    def edit(x: Any, hook: Hook) -> Any:
        factors = np.ones((1, x.shape[1], model.cfg.n_heads, *[1] * (x.ndim - 3)))
        factors[:, pos, slice(None) if head is None else head] = factor
        return x * model.backend.from_host(factors)

    return edit


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("change", SCALES)
def test_effective_attention_times_values_is_wkv(change: str, side: Any, exact: Model) -> None:
    site = at.rwkv_bonus if change == "the bonus" else at.rwkv_write
    edits = [(site[:], scale(exact, pos, factor)) for pos, factor in SCALES[change].items()]
    sites = (at.rwkv_effective_attn, at.rwkv_v, at.rwkv_wkv)
    run = exact.run(ROWS, padding_side=side, capture=[site[:] for site in sites], edits=edits)
    host = exact.backend.to_host
    there = host(run.attention_mask)
    for n in range(exact.cfg.n_layers):
        attn, values, wkv = (host(run[site[n]]) for site in sites)
        product = np.einsum("bhqk,bkhd->bqhd", attn, values)
        assert relative_error(product[there], wkv[there]) <= BOUND
        for row, tokens in enumerate(there):
            assert not attn[row][:, tokens][..., ~tokens].any(), "a token reads a pad"
            among = attn[row][:, tokens][..., tokens]
            assert not np.triu(among, 1).any(), "a token reads one after it"
            assert np.tril(among, -1).any() == (change != "every write")


@pytest.mark.bits
def test_a_scaled_write_scales_its_column_and_no_other(exact: Model) -> None:
    n = exact.cfg.n_layers - 1
    host, point = exact.backend.to_host, at.rwkv_effective_attn[n]
    plain = host(exact.run(PROMPT, capture=[point])[point])
    for factor in (0.0, -2.5):
        edits: Any = {at.rwkv_write[n]: scale(exact, 4, factor, head=1)}
        found = host(exact.run(PROMPT, capture=[point], edits=edits)[point])
        wanted = plain.copy()
        # RWKV-6 reads itself as a bonus, which is no write.
        first = 4 if Pass(exact, PROMPT).is_7(n) else 5
        wanted[:, 1, first:, 4] *= factor
        assert relative_error(found, wanted) <= BOUND
        assert abs(plain[:, 1, 4:, 4]).min() > 0
        untouched = np.ones_like(plain, dtype=bool)
        untouched[:, 1, :, 4] = False
        assert np.array_equal(found[untouched], plain[untouched])


def test_a_scaled_bonus_scales_the_diagonal_of_rwkv6_alone(exact: Model) -> None:
    host, point = exact.backend.to_host, at.rwkv_effective_attn[0]
    plain = host(exact.run(PROMPT, capture=[point])[point])
    edits: Any = {at.rwkv_bonus[0]: scale(exact, 4, -2.5)}
    found = host(exact.run(PROMPT, capture=[point], edits=edits)[point])
    wanted = plain.copy()
    if not Pass(exact, PROMPT).is_7(0):
        wanted[:, :, 4, 4] *= -2.5
    assert relative_error(found, wanted) <= BOUND


def test_a_write_that_points_elsewhere_counts_by_its_part_along_the_value(exact: Model) -> None:
    host, back, n = exact.backend.to_host, exact.backend.from_host, 0
    plain = Pass(exact, PROMPT)
    values = plain[at.rwkv_v[n]][..., None, :]
    other = uneven(plain[at.rwkv_write[n]].shape)
    along = (other * values).sum(axis=-1) / (values * values).sum(axis=-1)
    points = [at.rwkv_effective_attn[n]]
    whole = exact.run(PROMPT, edits={at.rwkv_write[n]: back(other)}, capture=points)
    part = exact.run(
        PROMPT, edits={at.rwkv_write[n]: back(along[..., None] * values)}, capture=points
    )
    assert relative_error(host(whole[points[0]]), host(part[points[0]])) <= BOUND
    assert relative_error(host(whole[points[0]]), plain[points[0]]) > 0.1


def test_effective_attention_leaves_out_what_a_state_adds(exact: Model) -> None:
    run = Pass(exact, PROMPT, state=handed(exact, 2))
    for n in range(exact.cfg.n_layers):
        attn, values = run[at.rwkv_effective_attn[n]], run[at.rwkv_v[n]]
        product = np.einsum("bhqk,bkhd->bqhd", attn, values)
        nothing = np.zeros_like(run[at.rwkv_write[n]])
        before, _ = by_token(
            run[at.rwkv_r[n]], run[at.rwkv_decay[n]], nothing, run.removal(n), run.start(n)
        )
        assert relative_error(product + before, run[at.rwkv_wkv[n]]) <= BOUND
        assert relative_error(product, run[at.rwkv_wkv[n]]) > 1e-3


@pytest.mark.usefixtures("as_users_call")
def test_effective_attention_cannot_be_edited(exact: Model) -> None:
    own = exact.run(PROMPT, capture=[at.rwkv_effective_attn[1]])[at.rwkv_effective_attn[1]]
    edits: list[Any] = [own, lambda x, hook: x]
    selectors: list[Any] = [
        at.rwkv_effective_attn[1], at.rwkv_effective_attn[:], "blocks.*.rwkv.hook_effective_attn"
    ]  # fmt: skip
    message = r"at\.rwkv_effective_attn\[\d\] can be captured but not edited: it is derived"
    for edit in edits:
        for selector in selectors:
            with pytest.raises(HookError, match=message):
                exact.run(PROMPT, edits={selector: edit})


@pytest.mark.bits
@pytest.mark.parametrize("pos", [6, 15])
def test_an_edited_state_is_where_the_rest_goes_on_from(pos: int, exact: Model) -> None:
    host, back, n = exact.backend.to_host, exact.backend.from_host, exact.cfg.n_layers - 2
    head, tail = [row[: pos + 1] for row in PROMPT], [row[pos + 1 :] for row in PROMPT]
    plain = exact.run(PROMPT, capture=everything(exact))
    points = [point for point in everything(exact) if point.site is not at.rwkv_effective_attn]
    before = host(plain[at.rwkv_state[n]])[:, pos]
    wanted = before * uneven(before.shape) + 0.25

    def put(x: Any, hook: Hook) -> Any:
        return back(wanted[:, None]) if hook.pos == pos else x

    edits: Any = {at.rwkv_state[n]: put}
    whole = exact.run(PROMPT, edits=edits, capture=points)
    for point in points:
        early = host(whole[point])[:, :pos], host(plain[point])[:, :pos]
        assert np.array_equal(*early), (point, "changed before the edit")
    first = state_of(exact.run(head, edits=edits))
    assert relative_error(host(first[n].wkv), wanted) <= BOUND
    states = [first]
    if not Pass(exact, PROMPT).is_7(n):
        # RWKV-6 reads a state before it is updated: the position itself sees nothing of it.
        states.append(state_of(exact.run(head)).with_layer(n, wkv=back(wanted)))
    for state in states:
        rest = exact.run(tail, state=state, capture=points)
        for point in points:
            late = host(whole[point])[:, pos + 1 :]
            assert relative_error(host(rest[point]), late) <= BOUND, point
    assert relative_error(host(whole.logits), host(plain.logits)) > 1e-6
