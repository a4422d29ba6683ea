"""Time RWKV's recurrence on NumPy: token by token, by its definition, and by the NumPy backend.

All sides take turns, on the processor time of the thread that calls: it waits for other threads of
BLAS by spinning, so that theirs counts too, and other programs' turns do not. The table shows the
best of many. Every number of BLAS threads gets its own process::

    python -m bench.recurrence
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from bench import report
from bench.peers import disagreement
from mi_ref import get_backend
from mi_ref.ops.recurrence import recurrence

Array = np.ndarray[Any, Any]
Terms = tuple[Array, Array, Array, Array, tuple[Array, Array] | None, Array]
Side = Callable[..., tuple[Array, Array]]

D_HEAD = 64
SIDES = ("loop", "loop in place", "definition", "NumPy's")
SECONDS = 6.0
"""After this long a cell ends, though not before `FEWEST` rounds."""
FEWEST, MOST = 5, 200
TOLERANCE = 1e-5
TARGET = 0.2
"""Time over the loop's that is asked of NumPy's version at `ASKED` tokens and d_model."""
ASKED = (512, 512)


def token_by_token(
    r: Array,
    k: Array,
    v: Array,
    decay: Array,
    removal: tuple[Array, Array] | None,
    state: Array,
) -> tuple[Array, Array]:
    """Compute the formulas directly, one position at a time; see `mi_ref.ops.recurrence`."""
    r, k, v, decay = map(np.ascontiguousarray, (r, k, v, decay))
    pair = None if removal is None else [np.ascontiguousarray(x) for x in removal]
    reads = []
    for t in range(k.shape[1]):
        written = k[:, t, :, :, None] * v[:, t, :, None, :]
        query = r[:, t, :, None, :]
        if pair is None:
            reads.append(query @ state)
            state = decay[:, t, :, :, None] * state + written
        else:
            removed = pair[0][:, t, :, None, :] @ state
            state = decay[:, t, :, :, None] * state - pair[1][:, t, :, :, None] * removed + written
            reads.append(query @ state)
    return np.concatenate(reads, axis=2).swapaxes(1, 2), state


def in_place(
    r: Array,
    k: Array,
    v: Array,
    decay: Array,
    removal: tuple[Array, Array] | None,
    state: Array,
) -> tuple[Array, Array]:
    """Do the same in memory that is allocated once."""
    r, k, v, decay = map(np.ascontiguousarray, (r, k, v, decay))
    pair = None if removal is None else [np.ascontiguousarray(x) for x in removal]
    state, part, reads = state.copy(), np.empty_like(state), np.empty_like(v)
    for t in range(k.shape[1]):
        query, read = r[:, t, :, None, :], reads[:, t, :, None, :]
        if pair is None:
            np.matmul(query, state, out=read)
            state *= decay[:, t, :, :, None]
        else:
            removed = pair[0][:, t, :, None, :] @ state
            state *= decay[:, t, :, :, None]
            state -= np.multiply(pair[1][:, t, :, :, None], removed, out=part)
        state += np.multiply(k[:, t, :, :, None], v[:, t, :, None, :], out=part)
        if pair is not None:
            np.matmul(query, state, out=read)
    return reads, state


def terms(n_tokens: int, d_model: int, removes: bool) -> Terms:
    """Return random terms of one prompt in float32, in the memory order of a pass on NumPy."""
    rng = np.random.default_rng(0)
    shape = (d_model // D_HEAD, D_HEAD, 1, n_tokens)

    def drawn() -> Array:
        return rng.standard_normal(shape, dtype=np.float32)

    def share(x: Array) -> Array:
        return 1 / (1 + np.exp(-x))

    r, k, v, decay, removed_by = drawn(), drawn(), drawn(), np.exp(-0.6 * share(drawn())), drawn()
    removed_by /= np.linalg.norm(removed_by, axis=1, keepdims=True)
    removal = [removed_by, removed_by * share(drawn())]
    r, k, v, decay, *removal = (x.transpose(2, 3, 0, 1) for x in (r, k, v, decay, *removal))
    state = rng.standard_normal((1, shape[0], D_HEAD, D_HEAD), dtype=np.float32)
    return r, k, v, decay, (removal[0], removal[1]) if removes else None, state


def measure(n_tokens: int, d_model: int, removes: bool) -> dict[str, Any]:
    """Return the best seconds of each side, after a round that checks that all agree."""
    given = terms(n_tokens, d_model, removes)
    own: Side = get_backend("numpy").ops.recurrence
    calls: list[Side] = [token_by_token, in_place, partial(recurrence, xp=np), own]
    found = [call(*given) for call in calls]
    worst = max(disagreement(x, y) for one in found for x, y in zip(one, found[0], strict=True))
    if not worst <= TOLERANCE:
        raise SystemExit(
            f"results differ by {worst:.1e} of the largest; up to {TOLERANCE:g} is rounding."
            " The sides do not compute the same, so their times mean nothing."
        )
    clock = time.thread_time
    best = [float("inf")] * len(calls)
    end, rounds = time.monotonic() + SECONDS, 0
    while rounds < FEWEST or (rounds < MOST and time.monotonic() < end):
        gc.collect()
        for turn in range(len(calls)):
            number = (rounds + turn) % len(calls)
            start = clock()
            result = calls[number](*given)
            best[number] = min(best[number], clock() - start)
            del result
        rounds += 1
    return {
        "version": 7 if removes else 6,
        "d_model": d_model,
        "tokens": n_tokens,
        "rounds": rounds,
        "seconds": best,
    }


def rows(cells: list[dict[str, Any]], threads: int) -> list[list[str]]:
    """Return the table's rows, without its head."""
    found = []
    for cell in cells:
        loop, place, definition, own = cell["seconds"]
        asked = TARGET if (cell["tokens"], cell["d_model"]) == ASKED else None
        limit, met = report.verdict(own / loop, asked)
        found.append(
            [
                str(threads), f"RWKV-{cell['version']}", str(cell["d_model"]), str(cell["tokens"]),
                *(f"{s * 1e3:.2f}" for s in cell["seconds"]),
                *(f"{s / loop:.2f}" for s in (place, definition, own)), limit, met,
            ]
        )  # fmt: skip
    return found


def in_a_process(threads: int, tokens: list[int], widths: list[int]) -> list[dict[str, Any]]:
    """Measure with some number of BLAS threads, which only a new process can choose."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads)}
    arguments = ["--tokens", *map(str, tokens), "--widths", *map(str, widths), "--cells"]
    command = [sys.executable, "-m", "bench.recurrence", *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    cells: list[dict[str, Any]] = json.loads(done.stdout)
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 64, 512, 2048])
    parser.add_argument("--widths", type=int, nargs="+", default=[512, 2048], help="d_model")
    parser.add_argument("--threads", type=int, nargs="+", default=sorted({1, report.cores()}))
    parser.add_argument("--markdown", action="store_true", help="write the table into README.md")
    parser.add_argument("--cells", action="store_true", help="print measurements as JSON only")
    args = parser.parse_args()
    sizes = [(n, d, v7) for v7 in (True, False) for d in args.widths for n in args.tokens]
    if args.cells:
        print(json.dumps([measure(*size) for size in sizes]))
        return
    heading = report.machine()
    print(heading, flush=True)
    head = ["threads", "", "d_model", "tokens", *(f"{side} ms" for side in SIDES)]
    table = [[*head, *(f"{side} / loop" for side in SIDES[1:]), "target", ""]]
    for threads in args.threads:
        table += rows(in_a_process(threads, args.tokens, args.widths), threads)
    text = report.table(table)
    print("\n" + text)
    if args.markdown:
        report.write_section("recurrence", f"{heading}.\n\n{text}")


if __name__ == "__main__":
    main()
