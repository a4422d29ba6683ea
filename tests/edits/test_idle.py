"""``check_edits=True``: an edit that changes nothing at its point is an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mi_ref import Backend, HookError, Model, at, do
from mi_ref.edits.idle import Watched

pytestmark = pytest.mark.usefixtures("as_users_call")

PROMPT = [[30, 12, 5, 14, 19], [39, 21, 4, 16, 28]]


@pytest.fixture
def model(backend: Backend, load: Any) -> Model:
    loaded: Model = load("llama2", backend, "float32")
    return loaded


def nothing(x: Any, hook: Any) -> None:
    """Look and leave."""


def double(x: Any, hook: Any) -> Any:
    return x * 2


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (do.scale(1.0), r"scale\(factor=1\.0\)"),
        (do.add(np.zeros(24, np.float32), positions=[2]), r"add\(positions=\(2,\), value=<n"),
        (do.replace(0.0, rows=[False, True]), None),
        (nothing, r"the function nothing"),
        (lambda x, hook: x + 0, r"the function .*<lambda>"),
        (double, None),
        (do.zero(positions=[4]), None),
    ],
)  # fmt: skip
def test_an_idle_edit_is_named(edit: Any, said: str | None, model: Model) -> None:
    edits = [(at.resid_mid[1], edit)]
    if said is None:
        model.run(PROMPT, edits=edits, check_edits=True)
        return
    message = rf"check_edits=True: 1 edit changed no value where it acts: {said}.* at at\.resid_mid"
    with pytest.raises(HookError, match=message):
        model.run(PROMPT, edits=edits, check_edits=True)
    model.run(PROMPT, edits=edits)


def test_every_idle_edit_is_listed_and_no_other(model: Model) -> None:
    own = model.run(PROMPT, capture=[at.z[0]])[at.z[0]]
    edits: Any = [
        (at.z[0], own),
        (at.attn_out[:], do.scale(1.0)),
        (at.mlp_out[0], double),
        (at.pattern[1], do.scale_pattern(5.0, 0, [3])),
    ]
    with pytest.raises(HookError) as caught:
        model.run(PROMPT, edits=edits, check_edits=True)
    text = str(caught.value)
    for each in ("4 edits", "an array of shape (2, 5, 4, 6) at at.z[0]", "at.attn_out[0]",
                 "at.attn_out[1]", "at.pattern[1]"):  # fmt: skip
        assert each in text
    assert "mlp_out" not in text


def test_an_in_place_edit_is_seen(load: Any) -> None:
    from mi_ref import get_backend

    model: Model = load("llama2", get_backend("numpy"), "float32")

    def in_place(x: Any, hook: Any) -> None:
        x[0, 0] = 0

    model.run(PROMPT, edits={at.embed: in_place}, check_edits=True)


def test_minus_infinity_and_nan_are_values(model: Model) -> None:
    xp = model.backend.xp

    def masked(x: Any, hook: Any) -> Any:
        return xp.where(x == -xp.inf, xp.full_like(x, -xp.inf), x)

    def nan(x: Any, hook: Any) -> Any:
        return xp.full_like(x, xp.nan)

    for edits in (
        [(at.attn_scores[0], masked)],
        [(at.resid_post[1], nan), (at.resid_post[1], nan)],
    ):
        with pytest.raises(HookError, match="1 edit changed no value"):
            model.run(PROMPT, edits=edits, check_edits=True)


@pytest.mark.bits
def test_watching_changes_no_bit(model: Model) -> None:
    edits: Any = [(at.resid_mid[:], double), (at.z[0], do.zero(heads=[1]))]
    first = model.run(PROMPT, edits=edits, capture=[at.z[1]])
    second = model.run(PROMPT, edits=edits, capture=[at.z[1]], check_edits=True)
    host = model.backend.to_host
    assert np.array_equal(host(first.logits), host(second.logits))
    assert np.array_equal(host(first[at.z[1]]), host(second[at.z[1]]))


def test_off_it_watches_nothing(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Watched, "__call__", None)
    model.run(PROMPT, edits=[(at.z[0], nothing)])


def test_what_does_not_fit_is_refused_as_ever(model: Model) -> None:
    from mi_ref import ShapeError

    with pytest.raises(ShapeError, match="what the edit returned"):
        model.run(PROMPT, edits=[(at.embed, lambda x, hook: x[:, :2, ...])], check_edits=True)


@pytest.mark.parametrize(("positions", "idle"), [([4], False), ([0, 3], False), (None, True)])
def test_an_edit_of_the_state_counts_over_its_positions(
    positions: list[int] | None, idle: bool, backend: Backend, load: Any
) -> None:
    model: Model = load("rwkv7", backend, "float32")
    edit = do.scale(1.0) if idle else do.scale(0.5, positions=positions)
    edits = [(at.rwkv_state[1], edit)]
    if idle:
        with pytest.raises(HookError, match=r"scale\(factor=1\.0\) at at\.rwkv_state\[1\]"):
            model.run(PROMPT, edits=edits, check_edits=True)
    else:
        model.run(PROMPT, edits=edits, check_edits=True)
    state = model.run(PROMPT, capture=[at.rwkv_state[1]])[at.rwkv_state[1]]
    with pytest.raises(HookError, match="an array of shape"):
        model.run(PROMPT, edits={at.rwkv_state[1]: state}, check_edits=True)
