"""Where a forward pass of ``mi_ref`` spends its time, operation by operation.

Every operation of ``backend.ops`` is wrapped in a timer; the remainder is everything else (taps,
reshapes, additions to the residual stream). The floor of a matrix product is the
fastest of its two orientations and (few tokens) row panels, written to memory already warm::

    python -m bench.profile_layers --tokens 8 64 512
"""

from __future__ import annotations

import argparse
import gc
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import mi_ref
from bench import report
from bench.make_model import cached_model
from mi_ref.params.params import ExpertsParams, LayerParams, Linear, MLPParams

CLOCK = report.clock()


@dataclass(slots=True)
class Timer:
    """Time and calls of each operation over one forward pass."""

    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    calls: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    depth: int = 0

    def call(self, name: str, op: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call `op` and record its time, unless another operation called it."""
        key = f"linear {_shape(args[1])}" if name in ("linear", "unembed") else name
        self.depth += 1
        start = CLOCK()
        try:
            return op(*args, **kwargs)
        finally:
            spent = CLOCK() - start
            self.depth -= 1
            if self.depth == 0:
                self.seconds[key] += spent
                self.calls[key] += 1


def timed_model(model: mi_ref.Model, timer: Timer) -> mi_ref.Model:
    """Return the model with a timer around every operation of its backend."""
    ops = model.backend.ops
    wrapped = {
        f.name: partial(timer.call, f.name, value) if callable(value) else value
        for f in fields(ops)
        for value in [getattr(ops, f.name)]
    }
    return replace(model, backend=replace(model.backend, ops=replace(ops, **wrapped)))


def profile(model: mi_ref.Model, n_tokens: int, rounds: int, everything: bool) -> None:
    """Print one table: median milliseconds of each operation per pass."""
    timer = Timer()
    timed = timed_model(model, timer)
    prompt = np.random.default_rng(0).integers(model.cfg.d_vocab, size=n_tokens)
    passes: list[dict[str, float]] = []
    for number in range(rounds + 1):
        timer.seconds.clear()
        timer.calls.clear()
        start = CLOCK()
        result: Any = timed.run_with_cache(prompt) if everything else timed.run(prompt)
        total = CLOCK() - start
        del result
        gc.collect()
        if number:  # the first pass reads weights from disk and memory from the system
            rest = total - sum(timer.seconds.values())
            passes.append({**timer.seconds, "remainder": rest, "whole pass": total})
    floors = product_floors(model, n_tokens)
    kind = "everything captured" if everything else "plain"
    print(f"\n{n_tokens} tokens, {kind}, median of {rounds} passes")
    print(f"{'operation':<32}{'calls':>6}{'ms':>9}{'share':>8}{'floor ms':>10}{'GB/s':>7}")
    medians = {key: statistics.median(p[key] for p in passes) for key in passes[0]}
    whole = medians["whole pass"]
    for key, seconds in sorted(medians.items(), key=lambda item: -item[1]):
        floor, n_bytes = floors.get(key, (None, 0))
        speed = f"{n_bytes / seconds / 1e9:.1f}" if n_bytes else ""
        shown = f"{floor * 1e3:.2f}" if floor is not None else ""
        print(
            f"{key:<32}{timer.calls.get(key, ''):>6}{seconds * 1e3:>9.2f}"
            f"{seconds / whole:>8.1%}{shown:>10}{speed:>7}"
        )
    total_floor = sum(floor for floor, _ in floors.values())
    print(f"products' floor {total_floor * 1e3:.1f} ms, {total_floor / whole:.0%} of the pass")


def product_floors(model: mi_ref.Model, n_tokens: int) -> dict[str, tuple[float, int]]:
    """Return, per shape of weight, seconds of all its bare products and their weights' bytes."""
    groups: defaultdict[str, list[Any]] = defaultdict(list)
    for weight in linear_weights(model):
        groups[f"linear {_shape(weight)}"].append(np.asarray(weight))
    floors = {}
    for key, weights in groups.items():
        d_out, d_in = weights[0].shape
        x = np.random.default_rng(0).standard_normal((n_tokens, d_in)).astype(np.float32)
        rows, columns = np.empty((n_tokens, d_out), x.dtype), np.empty((d_out, n_tokens), x.dtype)
        x_columns = np.ascontiguousarray(x.T)
        best = min(
            _seconds(lambda w: np.matmul(x, w.T, out=rows), weights),  # noqa: B023
            _seconds(lambda w: np.matmul(w, x_columns, out=columns), weights),  # noqa: B023
        )
        if n_tokens <= 16 and d_out % 32 == 0:  # few columns: panels of rows that stay in cache
            panels = np.empty((d_out // 32, 32, n_tokens), x.dtype)
            best = min(
                best,
                _seconds(
                    lambda w: np.matmul(w.reshape(-1, 32, w.shape[1]), x_columns, out=panels),  # noqa: B023
                    weights,
                ),
            )
        floors[key] = (best, sum(w.nbytes for w in weights))
    return floors


def linear_weights(model: mi_ref.Model) -> Iterable[Any]:
    """Yield every matrix that a forward pass multiplies by."""
    for layer in model.params.blocks:
        yield from (linear.weight for linear in _linears(layer))
    yield model.params.unembed.weight


def _linears(params: Any) -> Iterable[Linear]:
    """Yield the linear maps among some parameters, those of experts included."""
    if isinstance(params, Linear):
        yield params
    elif isinstance(params, tuple):
        for part in params:
            yield from _linears(part)
    elif isinstance(params, LayerParams | MLPParams | ExpertsParams):
        for f in fields(params):
            yield from _linears(getattr(params, f.name))


def _seconds(product: Callable[[Any], Any], weights: list[Any], rounds: int = 5) -> float:
    """Return the fastest of some passes over all weights, which no cache holds together."""
    spent = []
    for _ in range(rounds):
        start = CLOCK()
        for weight in weights:
            product(weight)
        spent.append(CLOCK() - start)
    return min(spent)


def _shape(weight: Any) -> str:
    return f"{weight.shape[1]} → {weight.shape[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--everything", action="store_true", help="with everything captured")
    parser.add_argument("--model", type=Path, help="folder; default: SmolLM-135M's shape")
    args = parser.parse_args()
    model = mi_ref.from_pretrained(args.model or cached_model())
    for n_tokens in args.tokens:
        profile(model, n_tokens, args.rounds, args.everything)


if __name__ == "__main__":
    main()
