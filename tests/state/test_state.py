"""Continuing from a state: a text split anywhere gives the whole text's result at every hook."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, Model, Run, ShapeError, State, at, get_backend
from mi_ref.hooks.sites import Point
from mi_ref.state.state import PARTS
from mi_ref.testing import relative_error
from tests.fixtures.model_points import everything
from tests.fixtures.rwkv_models import (
    BOUND,
    CASES,
    LONG,
    PROMPT,
    ROWS,
    SIDES,
    handed,
    state_of,
    times,
)
from tests.fixtures.tokenizer_specs import template

Load = Callable[..., Model]


@pytest.fixture(params=CASES)
def exact(request: pytest.FixtureRequest, backend: Backend, load: Load) -> Model:
    return load(request.param, backend, "float64")


@pytest.fixture(params=CASES)
def plain(request: pytest.FixtureRequest, load: Load) -> Model:
    """On NumPy alone."""
    return load(request.param, get_backend("numpy"), "float64")


def close_states(found: State, wanted: State) -> None:
    host = found.backend.to_host
    assert list(found.layers) == list(wanted.layers)
    for n, part in found.layers.items():
        for name in PARTS:
            own, other = getattr(part, name), getattr(wanted[n], name)
            assert relative_error(host(own), host(other)) <= BOUND, (n, name)


def late(array: Any, point: Point, cut: int) -> Any:
    """Return the part of the positions from `cut` on; both queries and keys."""
    return array[:, :, cut:, cut:] if "query_pos" in point.site.axes else array[:, cut:]


def compare(run: Run, whole: Run, cut: int) -> None:
    """Compare a run of the rest with the end of the whole run, at every hook."""
    host = run.backend.to_host
    for point in run.cache:
        assert relative_error(host(run[point]), late(host(whole[point]), point, cut)) <= BOUND, (
            point, cut,
        )  # fmt: skip
    assert relative_error(host(run.logits), host(whole.logits)[:, cut:]) <= BOUND
    close_states(state_of(run), state_of(whole))


@pytest.mark.bits
def test_a_text_cut_anywhere_is_the_whole(exact: Model) -> None:
    points = everything(exact)
    whole = exact.run(PROMPT, capture=points)
    # Within a chunk of the recurrence, at its ends, and beside them.
    cuts = (1, 5, 15, 16, 17, 18) if exact.backend.name == "numpy" else (7, 16)
    for cut in cuts:
        head, tail = [row[:cut] for row in PROMPT], [row[cut:] for row in PROMPT]
        state = state_of(exact.run(head))
        compare(exact.run(tail, state=state, capture=points), whole, cut)
        # The state is a value: a run that continued from it did not change it.
        again = exact.run(tail, state=state)
        assert np.array_equal(
            exact.backend.to_host(again.logits),
            exact.backend.to_host(exact.run(tail, state=state).logits),
        )


def test_token_by_token_is_the_whole(exact: Model) -> None:
    points, host = everything(exact), exact.backend.to_host
    n_pos = len(LONG) if exact.backend.name == "numpy" else 5
    whole = exact.run([row[:n_pos] for row in PROMPT], capture=points)
    state = State.empty(exact, 2)
    for pos in range(n_pos):
        run = exact.run([[row[pos]] for row in PROMPT], state=state, capture=points)
        for point in points:
            array, here = host(whole[point]), slice(pos, pos + 1)
            part = array[:, :, here, here] if "query_pos" in point.site.axes else array[:, here]
            assert relative_error(host(run[point]), part) <= BOUND, (point, pos)
        state = state_of(run)
        for n in range(exact.cfg.n_layers):
            wanted = host(whole[at.rwkv_state[n]])[:, pos]
            assert relative_error(host(state[n].wkv), wanted) <= BOUND
            for name, site in (("attn_shift", at.attn_in), ("mlp_shift", at.mlp_in)):
                found, last = host(getattr(state[n], name)), host(whole[site[n]])[:, pos]
                assert relative_error(found, last) <= BOUND


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("cuts", [(2, 7, 11), (5, 18, 1), (1, 1, 1)])
def test_padded_batches_go_on_row_by_row(cuts: Any, side: Any, plain: Model) -> None:
    """Rows cut at different places, padded on one side before the cut and on the other after."""
    heads = [row[:cut] for row, cut in zip(ROWS, cuts, strict=True)]
    tails = [row[cut:] for row, cut in zip(ROWS, cuts, strict=True)]
    other = SIDES[side == "left"]
    first = state_of(plain.run(heads, padding_side=other))
    second = plain.run(tails, padding_side=side, state=first, capture=everything(plain))
    there = np.asarray(second.attention_mask)
    for row, (tokens, cut) in enumerate(zip(ROWS, cuts, strict=True)):
        whole = plain.run(tokens, capture=everything(plain))
        close_states(state_of(second).rows([row]), state_of(whole))
        close_states(first.rows([row]), state_of(plain.run(heads[row])))
        alone = plain.run(tails[row], state=first.rows([row]), capture=everything(plain))
        compare(alone, whole, cut)
        for point in everything(plain):
            found = np.asarray(second[point])[row]
            squares = "query_pos" in point.site.axes
            own = found[:, there[row]][..., there[row]] if squares else found[there[row]]
            wanted = late(np.asarray(whole[point]), point, cut)[0]
            assert relative_error(own, wanted) <= BOUND, (point, row)


def test_token_by_token_in_a_batch_of_rows_that_end_early(plain: Model) -> None:
    """Rows leave the batch as they end, and the others continue from their own states."""
    whole = [plain.run(row) for row in ROWS]
    rows, state = list(range(3)), State.empty(plain, 3)
    for pos in range(len(LONG)):
        staying = [place for place, row in enumerate(rows) if pos < len(ROWS[row])]
        rows, state = [rows[place] for place in staying], state.rows(staying)
        run = plain.run([[ROWS[row][pos]] for row in rows], state=state)
        state = state_of(run)
        for place, row in enumerate(rows):
            found, wanted = np.asarray(run.logits)[place, 0], np.asarray(whole[row].logits)[0, pos]
            assert relative_error(found, wanted) <= BOUND


def test_one_prompt_for_many_continuations(plain: Model) -> None:
    state = state_of(plain.run(LONG[:9]))
    tails = [[5, 1], [2, 2], [30, 8]]
    run = plain.run(tails, state=state.rows([0] * 3))
    for row, tail in enumerate(tails):
        alone = plain.run(LONG[:9] + tail).logits
        found = np.asarray(run.logits)[row]
        assert relative_error(found, np.asarray(alone)[0, 9:]) <= BOUND


@pytest.mark.bits
def test_an_empty_state_is_none_at_all(exact: Model) -> None:
    host = exact.backend.to_host
    for prompt in (PROMPT, [LONG[:1]]):
        none = exact.run(prompt)
        empty = exact.run(prompt, state=State.empty(exact, len(prompt)))
        assert np.array_equal(host(none.logits), host(empty.logits))


def test_edits_act_on_the_rest_alone(plain: Model) -> None:
    """The part before the cut is not computed again."""
    state, factors = state_of(plain.run(LONG[:9])), np.full((1, 10, 1), -1.5)
    edits: Any = {at.attn_in[0]: times(factors, plain)}
    found = plain.run(LONG[9:], state=state, edits=edits)

    def late_only(x: Any, hook: Any) -> None:
        x[:, 9:] *= -1.5

    wanted = plain.run(LONG, edits={at.attn_in[0]: late_only})
    assert relative_error(np.asarray(found.logits), np.asarray(wanted.logits)[:, 9:]) <= BOUND
    untouched = np.asarray(plain.run(LONG).logits)[:, 9:]
    assert relative_error(np.asarray(found.logits), untouched) > 1e-3


@pytest.mark.bits
@pytest.mark.parametrize("begins", ["at nothing", "from a state"])
def test_a_run_in_two_halves_of_layers_is_the_whole(begins: str, exact: Model) -> None:
    state = None if begins == "at nothing" else handed(exact, 2)
    host = exact.backend.to_host
    whole = exact.run(PROMPT, state=state, capture=everything(exact))
    for n in range(exact.cfg.n_layers + 1):
        first = exact.run(PROMPT, state=state, stop_at_layer=n)
        assert list(state_of(first).layers) == list(range(n))
        assert state_of(first).batch == (2 if n else 0)
        assert repr(state_of(first)).endswith(f" rows, {n} layers>")
        rest = [point for point in everything(exact) if (point.layer or 0) >= n]
        rest = [point for point in rest if point is not at.embed]
        second = exact.run(first, start_at_layer=n, state=state, capture=rest)
        for point in rest:
            assert np.array_equal(host(second[point]), host(whole[point])), point
        assert np.array_equal(host(second.logits), host(whole.logits))
        assert list(state_of(second).layers) == list(range(n, exact.cfg.n_layers))
        joined = State({**state_of(first).layers, **state_of(second).layers}, exact)
        close_states(joined, state_of(whole))


@pytest.mark.bits
def test_later_layers_of_rwkv7_need_the_first_ones_values(exact: Model) -> None:
    mixes = any(getattr(layer.mixer, "d_value", None) for layer in exact.cfg.layers)
    edits: Any = {at.rwkv_v[0]: lambda x, hook: x * 1.5}
    whole, host = exact.run(PROMPT, edits=edits), exact.backend.to_host
    first = exact.run(PROMPT, edits=edits, stop_at_layer=1, capture=[at.rwkv_v[0]])
    # As edited: later layers mix in what flowed on.
    assert np.array_equal(host(exact.run(first, start_at_layer=1).logits), host(whole.logits))
    if not mixes:
        assert first.first_values is None
        again = exact.run(first.resid, start_at_layer=1).logits
        assert np.array_equal(host(again), host(whole.logits))
        return
    assert np.array_equal(host(first.first_values), host(first[at.rwkv_v[0]]))
    message = (
        r"layers after the first mix layer 0's values into their own.*pass the run that stopped"
        r" there, model\.run\(run, start_at_layer=1\)"
    )
    with pytest.raises(ShapeError, match=message):
        exact.run(first.resid, start_at_layer=1)
    with pytest.raises(ShapeError, match=message):
        exact.run(exact.run(PROMPT, stop_at_layer=0), start_at_layer=1)
    again = exact.run(exact.run(PROMPT, stop_at_layer=0).resid, start_at_layer=0, edits=edits)
    assert np.array_equal(host(again.logits), host(whole.logits))
    # Starting at the first layer, its own values count, not those of the given run.
    anew = [exact.run(start, start_at_layer=0).logits for start in (first, first.resid)]
    assert np.array_equal(host(anew[0]), host(anew[1]))


@pytest.fixture
def speaking(repository: Path, tmp_path: Path) -> Model:
    """An RWKV-7 of forty words, whose tokenizer begins every text with a token."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    shutil.copytree(repository / "golden" / "data" / "rwkv7", tmp_path, dirs_exist_ok=True)
    words = ["<unk>", "<s>", *(f"w{n}" for n in range(38))]
    tokenizer = Tokenizer(models.WordLevel({w: n for n, w in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken("<s>")])
    spec = json.loads(tokenizer.to_str()) | {"post_processor": template({"<s>": 1})}
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}', encoding="utf-8")
    return mi_ref.from_pretrained(tmp_path, dtype="float64")


def test_what_follows_a_state_gets_no_beginning_of_a_text(speaking: Model) -> None:
    whole = speaking.run("w3 w4 w5 w6")
    assert np.array_equal(np.asarray(whole.tokens), [[1, 5, 6, 7, 8]])
    first = speaking.run("w3 w4")
    rest = speaking.run("w5 w6", state=first.state)
    assert np.array_equal(np.asarray(rest.tokens), [[7, 8]])
    assert relative_error(np.asarray(rest.logits), np.asarray(whole.logits)[:, 3:]) <= BOUND
    several = speaking.run(["w5 w6", "w7"], state=state_of(first).rows([0, 0]))
    assert [row[0] for row in np.asarray(several.tokens).tolist()] == [7, 9]
    asked = speaking.run("w5 w6", state=first.state, prepend_bos=True)
    assert np.array_equal(np.asarray(asked.tokens), [[1, 7, 8]])
    without = speaking.run("w5 w6", prepend_bos=False)
    assert np.array_equal(np.asarray(without.tokens), [[7, 8]])
