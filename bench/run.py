"""Time forward passes of ``mi_ref`` against HuggingFace transformers, in turns.

Every round runs each side once, in an order that rotates; a ratio is taken within the round, and
the table shows the median of the ratios, which hardly changes if the machine slows down for a
while::

    python -m bench.run              # about four minutes on two idle cores
    python -m bench.run --quick      # about a minute
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from bench import report
from bench.make_model import DTYPES, SHAPES, cached_model
from bench.peers import TASKS, HuggingFace, MiRef, Peer, disagreement, load_huggingface

ROUNDS = {8: 31, 64: 15, 512: 7}
QUICK_ROUNDS = {8: 9, 64: 5, 512: 2}
REST = 0.05
"""Seconds between measurements: threads of one side's library go on spinning for a while."""
SECONDS = 20.0
"""After this long a task at one length ends early, though not before `FEWEST` rounds."""
QUICK_SECONDS = 3.0
FEWEST = 2
TOLERANCE = 1e-5


@dataclass(slots=True)
class Cell:
    """All measurements of one task at one length: seconds of each side, round by round."""

    task: str
    n_tokens: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    kept_megabytes: dict[str, float] = field(default_factory=dict)

    def ratios(self, peer: str) -> list[float]:
        """Return ``mi_ref``'s time over `peer`'s of each round; none if it took no part."""
        if peer not in self.seconds:
            return []
        return [a / b for a, b in zip(self.seconds["mi_ref"], self.seconds[peer], strict=True)]

    def target(self) -> tuple[str, float] | None:
        """Return which ratio has an upper limit, and the limit."""
        if self.task == "plain":
            return "HF sdpa", 0.75 if self.n_tokens <= 64 else 1.0
        return ("HF eager", 0.7) if self.task == "everything" else None


def measure(peers: list[Peer], task: str, tokens: list[int], rounds: int, limit: float) -> Cell:
    """Run one task on one prompt, every side in turn, after a round that does not count.

    Parameters
    ----------
    peers : list of Peer
        The sides.
    task : str
        Of `TASKS`.
    tokens : list of int
        The prompt.
    rounds : int
        How many rounds count.
    limit : float
        Seconds after which no further round begins once there are `FEWEST`.
    """
    calls = [(p, c) for p in peers for c in [p.task(task, tokens)] if c is not None]
    cell = Cell(task, len(tokens), {peer.name: [] for peer, _ in calls})
    clock = report.clock()
    end = time.monotonic() + limit
    for number in range(rounds + 1):
        if number > FEWEST and time.monotonic() > end:
            break
        first = number % len(calls)
        for peer, call in calls[first:] + calls[:first]:
            peer.prepare()
            gc.collect()
            time.sleep(REST)
            start = clock()
            result = call()
            spent = clock() - start
            if number:
                cell.seconds[peer.name].append(spent)
            else:
                cell.kept_megabytes[peer.name] = peer.kept_bytes(result) / 1e6
            del result
    return cell


def check_equal_work(peers: list[Peer], tokens: list[int]) -> float:
    """Return the largest relative difference of logits; stop if it exceeds rounding."""
    logits = []
    for peer in peers:
        peer.prepare()
        call = peer.task("plain", tokens)
        assert call is not None
        logits.append(peer.to_numpy(call()))
    worst = max(disagreement(logits[0], other) for other in logits[1:])
    if not worst <= TOLERANCE:
        raise SystemExit(
            f"logits differ by {worst:.1e} of the largest; up to {TOLERANCE:g} is rounding."
            " The sides do not compute the same, so their times mean nothing."
        )
    return worst


def rows(cells: list[Cell]) -> Iterator[list[str]]:
    """Yield the table's rows, head first."""
    yield [
        "task", "tokens", "rounds", "mi_ref ms", "HF sdpa ms", "HF eager ms",
        "mi_ref / sdpa", "mi_ref / eager", "target", "", "kept MB (mi_ref, eager)",
    ]  # fmt: skip
    for cell in cells:
        names = ("mi_ref", "HF sdpa", "HF eager")
        times = [
            f"{statistics.median(cell.seconds[n]) * 1e3:.1f}" if n in cell.seconds else "–"
            for n in names
        ]
        ratios = {name: cell.ratios(name) for name in names[1:]}
        limit, met = "", ""
        if (target := cell.target()) is not None and ratios[target[0]]:
            middle = statistics.median(ratios[target[0]])
            limit, met = report.verdict(middle, target[1])
            met = met if report.threads() == report.cores() else "(not all cores)"
            limit = f"{target[0]} {limit}"
        kept = [f"{cell.kept_megabytes.get(n, float('nan')):.1f}" for n in (names[0], names[2])]
        yield [
            cell.task, str(cell.n_tokens), str(len(cell.seconds[names[0]])), *times,
            *(report.with_spread(r) if r else "–" for r in ratios.values()),
            limit, met, ", ".join(kept),
        ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the stored weights")
    parser.add_argument("--tokens", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--tasks", choices=TASKS, nargs="+", default=list(TASKS))
    parser.add_argument("--rounds", type=int, help="of every task and length; default: by length")
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--json", type=Path, help="write every measurement to this file")
    parser.add_argument("--markdown", action="store_true", help="write the table into README.md")
    args = parser.parse_args()

    heading = report.machine()
    print(heading, report.unrest(), flush=True)
    folder = cached_model(args.shape, args.dtype)
    model = load_huggingface(folder, report.threads())
    peers: list[Peer] = [MiRef(folder), HuggingFace(model, "sdpa"), HuggingFace(model, "eager")]
    rng = np.random.default_rng(0)
    prompts = {
        n: rng.integers(SHAPES[args.shape]["vocab_size"], size=n).tolist() for n in args.tokens
    }
    worst = max(check_equal_work(peers, prompt) for prompt in prompts.values())
    print(f"logits agree to {worst:.1e} of the largest", flush=True)
    cells = []
    for n_tokens, prompt in prompts.items():
        rounds = args.rounds or (QUICK_ROUNDS if args.quick else ROUNDS).get(n_tokens, 5)
        limit = math.inf if args.rounds else QUICK_SECONDS if args.quick else SECONDS
        for task in args.tasks:
            cells.append(measure(peers, task, prompt, rounds, limit))
            print(f"  {n_tokens} tokens, {task}: done", flush=True)
    text = report.table(list(rows(cells)))
    print("\n" + text)
    if args.json:
        args.json.write_text(json.dumps([asdict(cell) for cell in cells], indent=1))
    if args.markdown:
        shape = f"Shape {args.shape}, {args.dtype} checkpoint, computed in float32."
        report.write_section("forward", f"{heading}. {shape}\n\n{text}")


if __name__ == "__main__":
    main()
