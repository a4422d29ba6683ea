"""State knockout, state steering and token removal compared with plain loops and shorter texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from mi_ref import (
    ArgumentError,
    Backend,
    HookError,
    Model,
    at,
    get_backend,
    state_knockout,
    state_steering,
    token_removal,
)
from mi_ref.hooks.sites import LayerSite
from mi_ref.testing import relative_error
from tests.fixtures.rwkv_formulas import Pass, by_token
from tests.fixtures.rwkv_models import BOUND, CASES, LONG, PROMPT, ROWS, handed, state_of

Load = Callable[..., Model]
SWITCHES = ("write", "erase", "decay", "self_read", "shift")


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


@pytest.fixture(params=CASES)
def model(request: pytest.FixtureRequest, load: Load) -> Model:
    """On NumPy alone."""
    return load(request.param, get_backend("numpy"), "float64")


def by_candle_mi(run: Pass, n: int, scales: Any) -> tuple[Any, Any]:
    """Return wkv and states of a layer whose writes are multiplied, [pos, head] each."""
    k, v = run[at.rwkv_k[n]], run[at.rwkv_v[n]]
    writes = scales[..., None, None] * k[..., :, None] * v[..., None, :]
    own = 0.0
    if not run.is_7(n):
        # u (k vᵀ) read by r: the position's own write counts in full, whatever is knocked out.
        bonus = run.host(run.model.params.layers[n].attn.bonus)  # type: ignore[union-attr]
        own = (run[at.rwkv_r[n]] * bonus * k).sum(axis=-1, keepdims=True) * v
    return by_token(
        run[at.rwkv_r[n]], run[at.rwkv_decay[n]], writes, run.removal(n), run.start(n), own
    )


def check(model: Model, edits: Any, scales: dict[int, dict[int, Any]]) -> Pass:
    """Compare every layer with the loop; `scales` are by layer, position and optionally head."""
    run = Pass(model, PROMPT, state=handed(model, 2), edits=edits)
    for n in range(model.cfg.n_layers):
        by_head = np.ones((len(LONG), model.cfg.n_heads))
        for pos, scale in scales.get(n, {}).items():
            by_head[pos] = scale
        reads, states = by_candle_mi(run, n, by_head)
        assert relative_error(run[at.rwkv_wkv[n]], reads) <= BOUND, n
        assert relative_error(run[at.rwkv_state[n]], states) <= BOUND, n
        assert relative_error(run.host(state_of(run.run)[n].wkv), states[:, -1]) <= BOUND
        # Everything else follows from the formulas.
    for point, formula in run.formulas():
        if point.site is not at.rwkv_write:
            assert relative_error(run[point], formula) <= BOUND, point
    return run


def logits(model: Model, prompt: Any = PROMPT, **options: Any) -> Any:
    return model.backend.to_host(model.run(prompt, **options).logits)


def test_knockout_is_candle_mis(exact: Model) -> None:
    every = range(exact.cfg.n_layers)
    places: list[tuple[Any, Sequence[int]]] = [
        (None, every), (1, [1]), (-1, every[-1:]), (slice(0, 1), [0]), ([0, 1], [0, 1])
    ]  # fmt: skip
    for layers, numbers in places[:: 1 if exact.backend.name == "numpy" else 3]:
        edits = state_knockout([3, 16], layers=layers)
        check(exact, edits, {n: {3: 0.0, 16: 0.0} for n in numbers})


def test_steering_is_candle_mis(exact: Model) -> None:
    for scale in (-1.5, 3.0):
        check(exact, state_steering([4, 5], scale=scale, layers=0), {0: {4: scale, 5: scale}})


def test_heads(model: Model) -> None:
    one = np.ones(model.cfg.n_heads)
    one[1] = 0.0
    check(model, state_knockout([7], heads=[1]), {n: {7: one} for n in range(model.cfg.n_layers)})
    last = np.ones(model.cfg.n_heads)
    last[-1] = 2.5
    check(model, state_steering([7], scale=2.5, heads=[-1], layers=1), {1: {7: last}})


@pytest.mark.bits
def test_scale_0_is_knockout_and_scale_1_is_nothing(model: Model) -> None:
    plain, out = logits(model), logits(model, edits=state_knockout([3]))
    assert np.array_equal(logits(model, edits=state_steering([3], scale=0.0)), out)
    assert np.array_equal(logits(model, edits=state_steering([3], scale=1.0)), plain)
    assert np.array_equal(out[:, :3], plain[:, :3])
    assert relative_error(out[:, 4:], plain[:, 4:]) > 1e-6


@pytest.mark.bits
def test_knockout_wins_over_steering_at_its_own_position_alone(model: Model) -> None:
    """Elsewhere in the layer steering acts as asked, whichever is given first."""
    knockout = state_knockout([3, 9], layers=0)
    steering = state_steering([3, 5], scale=-2.0, layers=slice(None))
    wanted = {n: {3: -2.0, 5: -2.0} for n in range(model.cfg.n_layers)}
    wanted[0] = {3: 0.0, 5: -2.0, 9: 0.0}
    runs = [
        check(model, edits, wanted) for edits in ((*knockout, *steering), (*steering, *knockout))
    ]
    assert np.array_equal(runs[0][at.logits], runs[1][at.logits])


@pytest.mark.bits
def test_what_a_knockout_leaves(model: Model) -> None:
    """Token shift still passes it to the next token; RWKV-6 still reads its own bonus there."""
    run = Pass(model, PROMPT, edits=state_knockout([3]))
    plain = Pass(model, PROMPT)
    assert relative_error(run[at.rwkv_shift[0]], plain[at.rwkv_shift[0]]) == 0.0
    same = np.array_equal(run[at.rwkv_wkv[0]][:, 3], plain[at.rwkv_wkv[0]][:, 3])
    assert same != run.is_7(0)


REMOVED: list[list[int]] = [[0], [5], [4, 5], [0, 1, 2], [2, 9, 17], [-3], [-19, 6]]


@pytest.mark.parametrize("positions", REMOVED, ids=str)
@pytest.mark.parametrize("begins", ["at nothing", "from a state"])
def test_a_removed_token_might_as_well_not_be_there(
    begins: str, positions: list[int], model: Model
) -> None:
    state = None if begins == "at nothing" else handed(model, 2)
    gone = {pos % len(LONG) for pos in positions}
    left = [pos for pos in range(len(LONG)) if pos not in gone]
    shorter = model.run([[row[pos] for pos in left] for row in PROMPT], state=state)
    removed = model.run(PROMPT, state=state, edits=token_removal(model, positions))
    found = np.asarray(removed.logits)[:, left]
    assert relative_error(found, np.asarray(shorter.logits)) <= BOUND
    for n in range(model.cfg.n_layers):
        for name in ("wkv", "attn_shift", "mlp_shift"):
            own, wanted = (getattr(state_of(run)[n], name) for run in (removed, shorter))
            assert relative_error(own, wanted) <= BOUND, (n, name)
    assert relative_error(found, logits(model, state=state)[:, left]) > 1e-6


@pytest.mark.parametrize("side", ["left", "right"])
def test_removal_in_a_padded_batch_counts_columns(side: Any, model: Model) -> None:
    """Of rows that end, or begin, together, it is the same token of each."""
    positions = [-3] if side == "left" else [2]
    shorter = [[x for n, x in enumerate(row) if n != positions[0] % len(row)] for row in ROWS]
    found = model.run(ROWS, padding_side=side, edits=token_removal(model, positions))
    there = np.asarray(found.attention_mask).copy()
    there[:, positions] = False
    for row, tokens in enumerate(shorter):
        alone = logits(model, tokens)[0]
        assert relative_error(np.asarray(found.logits)[row, there[row]], alone) <= BOUND


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_does_its_own_part(switch: str, exact: Model) -> None:
    recurrent_7 = Pass(exact, PROMPT).is_7(0)
    only = {name: name == switch for name in SWITCHES}
    if switch == "erase" and not recurrent_7:
        with pytest.raises(ArgumentError, match="removes nothing"):
            token_removal(exact, [5], **only)
        return
    layer = exact.cfg.n_layers - 1
    parts: dict[str, dict[LayerSite, float]] = {
        "write": {at.rwkv_write: 0.0},
        "erase": {at.rwkv_kk: 0.0},
        "decay": {at.rwkv_decay: 1.0},
        "self_read": {at.rwkv_bonus: 0.0},
        "shift": {at.rwkv_shift: 0.0, at.mlp_shift: 0.0},
    }
    run = Pass(exact, PROMPT, edits=token_removal(exact, [5], layers=layer, **only))
    for point, formula in run.formulas():
        wanted = np.array(formula)
        if point.layer == layer and point.site in parts[switch]:
            if switch == "shift":
                # The one after reads what the removed one would.
                wanted[:, 6] = formula[:, 5]
            else:
                wanted[:, 5] = parts[switch][point.site]
            assert relative_error(run[point], formula) > 1e-6
        assert relative_error(run[point], wanted) <= BOUND, point


@pytest.mark.bits
def test_switches_off_leave_the_rest(model: Model) -> None:
    """Two ways to say the same edits give the same bits."""
    whole = token_removal(model, [5])
    for switch in SWITCHES:
        others = {name: name == switch for name in SWITCHES}
        if switch == "erase" and not Pass(model, PROMPT).is_7(0):
            continue
        one = token_removal(model, [5], **others)
        rest = token_removal(model, [5], **{name: not on for name, on in others.items()})
        assert set(one) | set(rest) == set(whole)
        assert not set(one) & set(rest)
        together = logits(model, edits=(*rest, *one))
        assert np.array_equal(together, logits(model, edits=whole))


@pytest.mark.bits
def test_negative_positions_count_from_the_end(model: Model) -> None:
    makes: list[Callable[[int], Any]] = [
        lambda pos: state_knockout([pos]),
        lambda pos: state_steering([pos], scale=2.0),
        lambda pos: token_removal(model, [pos]),
    ]
    for make in makes:
        last = logits(model, edits=make(len(LONG) - 4))
        assert np.array_equal(logits(model, edits=make(-4)), last)


def test_refused_before_compute(model: Model, tiny: Model) -> None:
    def never(x: Any, hook: Any) -> Any:
        raise AssertionError("something was computed before the refusal")

    first: Any = [(at.embed, never)]
    for make in (state_knockout, lambda where: token_removal(model, where)):
        for positions in ([19], [0, -20]):
            with pytest.raises(HookError, match=r"(19|-20).*at at\.rwkv_write\[0\].*(19|-20)"):
                model.run(PROMPT, edits=[*first, *make(positions)])
        with pytest.raises(ArgumentError, match=r"positions=\[\]: expected at least one position"):
            make([])
    heads = model.cfg.n_heads
    with pytest.raises(HookError, match=rf"at at\.rwkv_write\[0\]: heads .*{heads}"):
        model.run(PROMPT, edits=[*first, *state_knockout([1], heads=[heads])])
    with pytest.raises(HookError, match=r"at\.rwkv_write\[9\]: this model's layers are 0 to"):
        model.run(PROMPT, edits=[*first, *state_knockout([1], layers=9)])
    with pytest.raises(ArgumentError, match=r"layers=\[\]: expected at least one layer; leave it"):
        state_steering([1], scale=2.0, layers=[])
    with pytest.raises(ArgumentError, match="token_removal with every switch off removes nothing"):
        token_removal(model, [1], **dict.fromkeys(SWITCHES, False))
    with pytest.raises(HookError, match=r"llama2 attends and has no recurrent.*at\.attn_scores"):
        token_removal(tiny, [1])
    with pytest.raises(HookError, match=r"at\.rwkv_write does not exist.*and no recurrent state"):
        tiny.run([1, 2, 3], edits=state_knockout([1]))
