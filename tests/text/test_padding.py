"""Prompts of different lengths in one batch: at every hook, each row equals its run alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, Hook, Model, Run, ShapeError, TokenError, at, get_backend
from mi_ref.config.decoder import Experts
from mi_ref.errors import ArgumentError
from mi_ref.hooks.sites import Point
from mi_ref.testing import GoldenCase, assert_close, relative_error
from tests.fixtures.model_points import everything

Load = Callable[..., Model]
Rows = list[list[int]]

# Some cases are longer than their model was made for, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:the prompt has [0-9]+ tokens")

TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
SIDES: tuple[Any, ...] = ("left", "right")


def rows_of(case: GoldenCase) -> Rows:
    """Cut a case's prompt to three lengths, the longest in the middle."""
    tokens = case.tokens[0]
    return [tokens[:-1], tokens, tokens[:-3]]


def logits(run: Run) -> Any:
    assert run.logits is not None
    return run.backend.to_host(run.logits)


def same(model: Model, a: Any, b: Any) -> bool:
    """Whether two arrays agree in every bit, or among experts to rounding.

    A product of many rows may round each row differently from a product of few, and how many tokens
    share an expert depends on the whole batch, pads included.
    """
    if any(isinstance(layer.mlp, Experts) for layer in model.cfg.layers):
        return relative_error(a, b) <= TOLERANCE["float32"]
    return bool(np.array_equal(a, b))


def columns(rows: Rows, row: int, side: str) -> slice:
    longest, own = max(map(len, rows)), len(rows[row])
    return slice(longest - own, longest) if side == "left" else slice(0, own)


def own(array: Any, point: Point, rows: Rows, row: int, side: str) -> Any:
    """Cut the part of a row's tokens out of a padded batch; both queries and keys."""
    cut = columns(rows, row, side)
    if "query_pos" in point.site.axes:
        return array[row : row + 1, :, cut, cut]
    return array[row : row + 1, cut]


def filled(rows: Rows, side: str, pad_id: int) -> tuple[Rows, Rows]:
    """Pad by hand: the rows and their mask."""
    gaps = [max(map(len, rows)) - len(row) for row in rows]
    parts = [([pad_id] * gap, row) for gap, row in zip(gaps, rows, strict=True)]
    masks = [([0] * gap, [1] * len(row)) for gap, row in zip(gaps, rows, strict=True)]
    order = 1 if side == "left" else -1
    tokens = [[token for part in pair[::order] for token in part] for pair in parts]
    return tokens, [[bit for part in pair[::order] for bit in part] for pair in masks]


def compare(run: Run, alone: list[Run], rows: Rows, side: str, dtype: str) -> None:
    """Compare each row's own part with the row's own run."""
    host = run.backend.to_host
    for point in run.cache:
        array = host(run[point])
        assert not np.isnan(array).any(), f"NaN at {point!r}, {side}"
        for row, single in enumerate(alone):
            part = own(array, point, rows, row, side)
            try:
                assert_close(single[point], part, rel=TOLERANCE[dtype], backend=run.backend)
            except AssertionError as error:
                pytest.fail(f"{point!r}, {side}, row {row}: {error}")


def check_rows(model: Model, rows: Rows, dtype: str) -> None:
    """Compare padded batches with the rows alone, at every hook and without hooks."""
    points, backend = everything(model), model.backend
    alone = [model.run(row, capture=points) for row in rows]
    for side in SIDES:
        compare(model.run(rows, capture=points, padding_side=side), alone, rows, side, dtype)
        unseen = logits(model.run(rows, padding_side=side))
        assert not np.isnan(unseen).any()
        for row, single in enumerate(alone):
            part = own(unseen, at.logits, rows, row, side)
            assert_close(single.logits, part, rel=TOLERANCE[dtype], backend=backend)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_rows_are_what_they_are_alone(golden: GoldenCase, dtype: str, load: Load) -> None:
    check_rows(load(golden.name, get_backend("numpy"), dtype), rows_of(golden), dtype)


# Learned positions; windows and two rotary variants; frequencies by length; experts; states.
@pytest.mark.parametrize(
    "case", ["gpt2", "gemma3", "phi3-longrope-long", "qwen3-moe", "rwkv6", "rwkv7"]
)
def test_rows_are_what_they_are_alone_everywhere(case: str, backend: Backend, load: Load) -> None:
    tokens = [3, 1, 4, 11, 5, 9, 2]
    check_rows(load(case, backend, "float64"), [tokens[:-1], tokens, tokens[:-3]], "float64")


@pytest.mark.bits
@pytest.mark.parametrize("side", SIDES)
def test_every_way_to_pad_and_any_pad_give_the_same_bits(
    side: Any, golden: GoldenCase, load: Load
) -> None:
    model = load(golden.name, get_backend("numpy"), "float32")
    rows, points = rows_of(golden), everything(model)
    listed = model.run(rows, capture=points, padding_side=side)
    batch = model.to_batch(rows, padding_side=side)
    assert batch.padding is not None
    assert batch.padding == listed.padding
    assert np.array_equal(batch.tokens, filled(rows, side, 0)[0])
    assert np.array_equal(listed.attention_mask, filled(rows, side, 0)[1])
    # Other pads, as lists and as an array, with a mask of numbers and one of booleans.
    by_hand, mask = filled(rows, side, 7)
    runs = [
        model.run(batch, capture=points),
        model.run(by_hand, capture=points, attention_mask=mask),
        model.run(np.array(by_hand), capture=points, attention_mask=np.array(mask, dtype=bool)),
    ]
    for run in runs:
        assert run.padding == listed.padding
        for point in points:
            for row in range(len(rows)):
                assert same(
                    model,
                    own(run[point], point, rows, row, side),
                    own(listed[point], point, rows, row, side),
                ), (point, row)


def test_rows_on_both_sides_of_a_length_that_changes_the_frequencies(load: Load) -> None:
    for case, longest in (("llama-dynamic-beyond", 9), ("phi3-longrope-long", 9)):
        model = load(case, get_backend("numpy"), "float64")
        tokens = [3, 1, 4, 11, 5, 9, 2, 6, 8][:longest]
        rows = [tokens[:4], tokens]
        alone = [model.run(row, capture=everything(model)) for row in rows]
        # As if the short row had the long one's frequencies: seen if rows shared them.
        shared = np.abs(logits(alone[0]) - logits(alone[1])[:, :4])
        assert shared.max() > 1e-6
        for side in SIDES:
            run = model.run(rows, capture=everything(model), padding_side=side)
            compare(run, alone, rows, side, "float64")


def test_learned_positions_count_from_the_first_token(backend: Backend, load: Load) -> None:
    model = load("gpt2", backend, "float64")
    run = model.run([[5, 6, 7, 8], [9, 10]], capture=[at.pos_embed], padding_side="left")
    found, table = backend.to_host(run[at.pos_embed]), backend.to_host(model.W_pos)
    assert np.array_equal(found[0], table[:4])
    assert np.array_equal(found[1, 2:], table[:2])


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("case", ["gpt2", "gemma2", "mixtral", "phi", "rwkv6", "rwkv7"])
def test_the_end_of_each_row(case: str, side: Any, backend: Backend, load: Load) -> None:
    # float64: what float32 rounds off, a group norm of a head near zero makes greater.
    model = load(case, backend, "float64")
    rows = [[3, 1, 4, 11], [5, 9, 2, 6, 8, 13], [7]]
    run = model.run(rows, padding_side=side)
    last = model.run(rows, padding_side=side, logits="last")
    for row, tokens in enumerate(rows):
        alone = model.run(tokens)
        for got in (run.top(3, batch=row), last.top(3, batch=row)):
            assert [p.id for p in got] == [p.id for p in alone.top(3)]
            assert [p.logit for p in got] == pytest.approx([p.logit for p in alone.top(3)], 1e-12)
        first = run.top(3, pos=0, batch=row)
        assert [p.id for p in first] == [p.id for p in alone.top(3, pos=0)]
        ends = alone.logits
        assert ends is not None
        own_end = logits(last)[row : row + 1]
        assert_close(ends[:, -1:, :], own_end, rel=1e-12, backend=backend)
    for pos in (1, -2):
        with pytest.raises(ShapeError, match=f"pos={pos}, batch=2: row 2 has 1 tokens"):
            run.top(pos=pos, batch=2)


@pytest.mark.bits
@pytest.mark.parametrize("side", SIDES)
def test_an_edit_of_one_row_leaves_the_others(side: Any, golden: GoldenCase, load: Load) -> None:
    model = load(golden.name, get_backend("numpy"), "float32")
    rows = rows_of(golden)

    def second(x: Any, hook: Hook) -> None:
        x[1] *= np.linspace(0.5, 2.0, x.shape[-1], dtype=np.float32)

    plain = logits(model.run(rows, padding_side=side))
    values = at.rwkv_v if model.cfg.recurrent else at.v
    for site in (at.resid_pre, values, at.attn_out, at.mlp_in):
        edited = logits(model.run(rows, padding_side=side, edits={site[0]: second}))
        for row in range(3):
            kept = same(
                model,
                own(edited, at.logits, rows, row, side),
                own(plain, at.logits, rows, row, side),
            )
            assert kept == (row != 1), (site, row)


@pytest.mark.bits
@pytest.mark.parametrize("side", SIDES)
def test_a_run_from_the_middle_goes_on_with_its_mask(
    side: Any, golden: GoldenCase, load: Load
) -> None:
    model = load(golden.name, get_backend("numpy"), "float32")
    rows = rows_of(golden)
    # Some recurrent layers read more of the first layer than its residual stream: the run has it.
    recurrent = model.cfg.recurrent
    mixed = at.rwkv_wkv[1] if recurrent else at.pattern[1]
    whole = model.run(rows, padding_side=side, capture=[mixed])
    first = model.run(rows, padding_side=side, stop_at_layer=1)
    second = model.run(
        first if recurrent else first.resid,
        start_at_layer=1,
        attention_mask=first.attention_mask,
        capture=[mixed],
    )
    unmasked = model.run(first, start_at_layer=1)
    assert second.padding == unmasked.padding == whole.padding
    assert np.array_equal(logits(second), logits(whole))
    assert np.array_equal(logits(unmasked), logits(whole))
    assert np.array_equal(second[mixed], whole[mixed])


@pytest.mark.bits
def test_a_mask_without_pads_and_rows_of_one_length_need_no_padding(tiny: Model) -> None:
    rows = [[1, 2, 3], [4, 5, 6]]
    plain = tiny.run(rows)
    masked = tiny.run(rows, attention_mask=[[1, 1, 1], [True, True, True]], padding_side="left")
    assert plain.padding is None
    assert masked.padding is None
    assert np.array_equal(logits(masked), logits(plain))
    assert np.array_equal(plain.attention_mask, np.ones((2, 3), dtype=bool))


@pytest.mark.bits
def test_a_mask_that_agrees_with_the_prompts(tiny: Model) -> None:
    rows = [[1, 2, 3], [4]]
    agreed = tiny.run(rows, attention_mask=[[1, 1, 1], [1, 0, 0]])
    assert np.array_equal(logits(agreed), logits(tiny.run(rows)))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[1, 1, 1], [1, 0, 1]], "row 1 of attention_mask has a pad between tokens"),
        ([[1, 1, 1]],
         r"attention_mask: expected \(batch 2, pos 3\) like the prompt, got 1 rows of \[3\]"),
        ([[1, 1], [1, 1]],
         r"expected \(batch 2, pos 3\) like the prompt, got 2 rows of \[2\] entries"),
        ([[1, 1, 1], [1, 1]], r"2 rows of \[2, 3\] entries"),
        ([1, 1, 1], r"expected rows of 1 and 0, \[batch, pos\]"),
        ([[1, 1, 1], [1, 2, 0]], "attention_mask: expected 1 for a token and 0 for a pad, got 2"),
        ([[1, 1, 0.5], [1, 1, 1]], r"expected 1 for a token and 0 for a pad, got 0\.5"),
        ([[1, 1, 1], [0, 0, 0]], "row 1 of attention_mask has no token: leave that row out"),
    ],
)  # fmt: skip
def test_masks_that_say_nothing_clear(mask: Any, message: str, tiny: Model) -> None:
    for given in (mask, np.array(mask)) if len(set(map(np.size, mask))) == 1 else (mask,):
        with pytest.raises(TokenError, match=message):
            tiny.run([[1, 2, 3], [4, 5, 6]], attention_mask=given)


@pytest.mark.usefixtures("as_users_call")
def test_what_contradicts_itself_is_refused(tiny: Model) -> None:
    rows = [[1, 2, 3], [4]]
    for mask in ([[1, 1, 1]] * 2, [[1, 1, 1], [0, 0, 1]], [[1, 1, 1], [1, 1, 0]]):
        with pytest.raises(TokenError, match="contradicts the pads that the prompts' own lengths"):
            tiny.run(rows, attention_mask=mask)
    side: Any = "middle"
    with pytest.raises(ArgumentError, match="padding_side='middle': expected 'left' or 'right'"):
        tiny.run(rows, padding_side=side)
    with pytest.raises(TokenError, match="the prompt is empty"):
        tiny.run([[1, 2, 3], []])


def test_learned_positions_end(load: Load) -> None:
    model = load("gpt2", get_backend("numpy"), "float32")
    longest = [[n % 45 for n in range(32)]]
    assert model.run(longest).logits is not None
    for prompt in ([0] * 33, [[0] * 33, [1]]):
        message = "33 tokens; .* has learned embeddings of 32 positions and none beyond. Shorten"
        with pytest.raises(TokenError, match=message):
            model.run(prompt)
    # Pads take no positions.
    padded, mask = [[0] * 3 + longest[0]], [[0] * 3 + [1] * 32]
    ends = model.run(padded, attention_mask=mask, logits="last").logits
    assert_close(ends, logits(model.run(longest))[:, -1:], rel=1e-5, backend=model.backend)
