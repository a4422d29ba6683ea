"""The parts of planted mistakes in recurrent decoders, beside tests/mistakes/mutations.py."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from mi_ref import Model, Run
from mi_ref.forward import rwkv
from mi_ref.forward.carry import Carry
from tests.mistakes.mutations import Mutation, config, operation, params

Change = Callable[[Any], Any]


def structure(change: Change) -> Mutation:
    """Change every layer's structure; the function gets a `RecurrentLayer`."""
    return lambda model: config(layers=tuple(map(change, model.cfg.layers)))(model)


def weights(change: Change) -> Mutation:
    """Change every layer's parameters; the function gets `RecurrentLayerParams`."""
    return params(lambda w: replace(w, layers=tuple(map(change, w.layers))))


def changed(old: Any, slots: dict[str, Change]) -> Any:
    return replace(old, **{slot: change(old) for slot, change in slots.items()})


def time_mix(**slots: Change) -> Mutation:
    """Change parameters of every layer's time mixing; a function gets all of them."""
    return weights(lambda w: replace(w, attn=changed(w.attn, slots)))


def channel_mix(**slots: Change) -> Mutation:
    """Change parameters of every layer's channel mixing; a function gets all of them."""
    return weights(lambda w: replace(w, mlp=changed(w.mlp, slots)))


@dataclass(frozen=True, slots=True, kw_only=True, repr=False, eq=False)
class Rewritten(Model):
    """A recurrent model that runs changed source code of `mi_ref.forward.rwkv`."""

    block: Callable[..., Carry]

    def run(self, *args: Any, **options: Any) -> Run:
        with mock.patch.object(rwkv, "block", self.block):
            return Model.run(self, *args, **options)


def rewritten(passages: Mapping[str, str]) -> Mutation:
    """Run a recurrent model on the source of `forward.rwkv` with each of `passages` replaced."""

    def plant(model: Model) -> Model:
        known = {field.name: getattr(model, field.name) for field in fields(Model) if field.init}
        return Rewritten(**known, block=_block(tuple(passages.items())))

    return plant


@cache
def _block(passages: tuple[tuple[str, str], ...]) -> Callable[..., Carry]:
    source = Path(rwkv.__file__).read_text("utf-8")
    for old, new in passages:
        assert source.count(old) == 1, (
            f"{source.count(old)} times in mi_ref/forward/rwkv.py: {old!r}"
        )
        source = source.replace(old, new)
    # The module's name, under which its dataclasses look up their annotations.
    names: dict[str, Any] = {"__name__": rwkv.__name__}
    exec(compile(source, "mi_ref/forward/rwkv.py rewritten", "exec"), names)
    found: Callable[..., Carry] = names["block"]
    return found


@dataclass(frozen=True)
class Position:
    """The terms of one position in the recurrence, as columns, and its value as a row."""

    r: Any
    k: Any
    v: Any
    decay: Any
    removal: Any
    strength: Any

    def updated(self, state: Any) -> Any:
        """Return the correct state after this position."""
        after = self.decay * state + self.k * self.v
        if self.removal is None:
            return after
        return after - self.strength * (self.removal.mT @ state)


def by_token(
    *,
    update: Callable[[Any, Position], Any] = lambda state, x: x.updated(state),
    reads: Callable[[Any, Any, Position], Any] | None = None,
    scale: float = 1.0,
) -> Mutation:
    """Run the recurrence as a loop.

    Parameters
    ----------
    update : callable
        Returns the state after a position.
    reads : callable, or None
        Gets the states before and after a position, and returns the one that it reads; None for
        the right one of each version.
    scale : float
        Multiplies the read value.
    """

    def recurrence(r: Any, k: Any, v: Any, decay: Any, removal: Any, state: Any) -> Any:
        read_from = reads or (lambda old, new, x: old if x.removal is None else new)
        found = []
        for pos in range(k.shape[1]):
            r_, k_, decay_ = (x[:, pos, :, :, None] for x in (r, k, decay))
            pair = [x[:, pos, :, :, None] for x in removal] if removal else [None, None]
            here = Position(r_, k_, v[:, pos, :, None, :], decay_, *pair)
            before, state = state, update(state, here)
            found.append((scale * here.r.mT @ read_from(before, state, here))[:, :, 0, :])
        return np.stack(found, axis=1), state

    return operation(recurrence=lambda right: recurrence)
