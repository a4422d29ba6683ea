"""Inputs for the tests of RWKV: cases, prompts, states of other tokens, uneven edits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from mi_ref import Hook, Model, Run, State
from mi_ref.state import PARTS

CASES = ("rwkv6", "rwkv6-fla", "rwkv7", "rwkv7-plain")
# More tokens than a chunk of the recurrence has.
LONG = [3, 1, 4, 11, 5, 9, 2, 6, 35, 8, 38, 0, 20, 24, 17, 33, 4, 4, 30]
PROMPT = [LONG, LONG[::-1]]
ROWS = [LONG[:6], LONG, LONG[4:16]]
SIDES: tuple[Any, ...] = ("left", "right")
BOUND = 1e-12
"""What float64 is held to, relative."""


def state_of(run: Run) -> State:
    """Return the state after a run's last tokens."""
    assert run.state is not None
    return run.state


def handed(model: Model, batch: int) -> State:
    """Return the state after some other tokens, different in each row."""
    return state_of(model.run([[7 + row, 21, 2, 30 - row] for row in range(batch)]))


def same_state(run: Run, other: Run, what: str = "") -> None:
    """Compare the states of two runs, bit by bit."""
    host = run.backend.to_host
    assert list(state_of(run).layers) == list(state_of(other).layers)
    for n, part in state_of(run).layers.items():
        for name in PARTS:
            own, wanted = getattr(part, name), getattr(state_of(other)[n], name)
            assert np.array_equal(host(own), host(wanted)), (what, n, name)


def uneven(shape: tuple[int, ...], seed: int = 0) -> Any:
    """Return factors from a half to two, so that no norm hides them."""
    return np.exp2(np.random.default_rng(seed).uniform(-1.0, 1.0, size=shape))


def times(factors: Any, model: Model) -> Callable[[Any, Hook], Any]:
    """Return an edit that multiplies, including the state, which it gets position by position."""

    def edit(x: Any, hook: Hook) -> Any:
        here = factors if hook.pos is None else factors[:, hook.pos : hook.pos + 1]
        return x * model.backend.from_host(here.astype(str(x.dtype).rpartition(".")[2]))

    return edit
