"""Whole numbers of any library, and truth values, which are none."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, Model, ShapeError, TokenError, at, capture
from mi_ref.analysis.arguments.numbers import whole
from mi_ref.whole_numbers import whole_number

pytestmark = pytest.mark.usefixtures("as_users_call")


@pytest.mark.parametrize("number", [3, np.int64(3), np.array(3), array_api_strict.asarray(3)])
def test_whole_numbers_become_pythons_own(number: Any) -> None:
    assert whole_number(number) == 3
    assert type(whole_number(number)) is int


@pytest.mark.parametrize(
    "number",
    [True, np.True_, np.array(True), array_api_strict.asarray(True), 3.0, "3", None, np.array([3])],
)
def test_anything_else_is_refused(number: Any) -> None:
    with pytest.raises(TypeError):
        whole_number(number)


def test_numpys_truth_values_are_no_positions_layers_or_tokens(atlas: Model) -> None:
    """NumPy before 2.3 takes them for 1 and 0."""
    true: Any = np.True_
    false: Any = np.False_
    with pytest.raises(ArgumentError, match="expected an index, a slice or a sequence, got a mask"):
        atlas.run([1, 2, 3], capture=[capture(at.z[0], pos=[true, false])])
    with pytest.raises(ArgumentError, match="expected a layer number or a slice"):
        at.z[true]
    with pytest.raises(ShapeError, match="a whole number is needed"):
        whole(true, "top")
    with pytest.raises(TokenError, match="is out of range"):
        mi_ref.analysis.logit_lens(atlas, [1, 2, 3], target=true)
    with pytest.raises(TokenError, match="flat sequence of integers"):
        atlas.tokenizer.decode([true])
    with pytest.raises(TokenError):
        atlas.run([true, true])
