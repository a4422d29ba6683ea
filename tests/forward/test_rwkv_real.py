"""A small third-party RWKV-7 reverses numbers, one token at a time from its state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Model, Run, State

SYMBOLS = "0123456789,#"
COMMA, END = SYMBOLS.index(","), SYMBOLS.index("#")
LONGEST = 50


@pytest.fixture(scope="module")
def model(shared: Path) -> Model:
    folder = shared / "models" / "rwkv7-reverse-40k"
    if not folder.is_dir():
        pytest.skip(f"no checkpoint at {folder}")
    # The config lists the symbols under a key that belongs to no layout.
    return mi_ref.from_pretrained(folder, dtype="float32", allow_unread_config=("vocab",))


@pytest.fixture(scope="module")
def numbers() -> list[list[int]]:
    """A hundred numbers as digits; two of each length, from one digit to fifty."""
    rng = np.random.default_rng(0)
    return [rng.integers(10, size=1 + n % LONGEST).tolist() for n in range(2 * LONGEST)]


def best(run: Run) -> Any:
    """Return the likeliest token after the last of each row."""
    assert run.logits is not None
    return np.argmax(np.asarray(run.logits[:, -1, :]), axis=-1)


def generate(model: Model, prompts: list[list[int]], n_tokens: int) -> Any:
    """Return the likeliest tokens, ``[row, token]``, after the prompts read as one batch."""
    run = model.run(prompts, logits="last")
    tokens = [best(run)]
    while len(tokens) < n_tokens:
        run = model.run(tokens[-1][:, None], state=run.state, logits="last")
        tokens.append(best(run))
    return np.stack(tokens, axis=1)


def test_every_number_is_reversed(model: Model, numbers: list[list[int]]) -> None:
    """Prompts of all lengths in one batch, so that pads stand between most of them and the end."""
    found = generate(model, [[*digits, COMMA] for digits in numbers], LONGEST + 1)
    for digits, tokens in zip(numbers, found.tolist(), strict=True):
        assert tokens[: len(digits) + 1] == [*digits[::-1], END]


def test_alone_and_token_by_token_they_are_reversed_too(
    model: Model, numbers: list[list[int]]
) -> None:
    for digits in numbers[:24:11]:
        state: State | None = None
        tokens: list[int] = []
        # Each digit, the comma, and then what the model itself says.
        for number in range(2 * len(digits) + 1):
            token = [*digits, COMMA, *tokens][number]
            run = model.run([token], state=state)
            state = run.state
            if number >= len(digits):
                tokens.append(int(best(run)[0]))
        assert tokens == [*digits[::-1], END]


def test_the_whole_text_predicts_what_was_generated(model: Model, numbers: list[list[int]]) -> None:
    digits = numbers[LONGEST - 1]
    run = model.run([*digits, COMMA, *digits[::-1]])
    assert run.logits is not None
    said = np.argmax(np.asarray(run.logits[0, len(digits) :, :]), axis=-1)
    assert said.tolist() == [*digits[::-1], END]


def test_without_the_state_nothing_is_known_of_the_number(
    model: Model, numbers: list[list[int]]
) -> None:
    """The state carries the number: emptied before the answer, most digits are wrong."""
    wrong = total = 0
    for digits in numbers[9::10]:
        forgetful = model.run([COMMA, *digits[::-1][:-1]])
        assert forgetful.logits is not None
        said = np.argmax(np.asarray(forgetful.logits[0]), axis=-1)
        wrong += int(np.sum(said != digits[::-1]))
        total += len(digits)
    assert wrong > total / 2
