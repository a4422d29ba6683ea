"""``mi-ref algzoo``: take one of AlgZoo's tiny networks apart."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output

_EXAMPLE = "mi-ref algzoo longest-cycle-h4-n4 --plot attention.png"
_DEFAULT = "second-argmax-h2-n2"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.command(commands, "algzoo", "take a tiny network of AlgZoo's apart", _EXAMPLE)
    parser.add_argument(
        "network", nargs="?", default=_DEFAULT, metavar="NETWORK",
        help=f"safetensors file or bundled network (default: {_DEFAULT})",
    )  # fmt: skip
    parser.add_argument(
        "--task", choices=["second_argmax", "argmedian", "median", "longest_cycle"],
        help="what it was trained for (default: a bundled network's own)",
    )  # fmt: skip
    parser.add_argument(
        "--n", type=options.positive, metavar="N",
        help="numbers per input (default: as many as it has answers)",
    )  # fmt: skip
    parser.add_argument(
        "--samples", type=options.positive, default=10_000, metavar="N",
        help="inputs to draw, or all functions if there are no more (default: 10000)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument(
        "--dtype", default="float64", choices=["float32", "float64"],
        help="what everything is computed in (default: float64)",
    )  # fmt: skip
    options.add_json(parser)
    options.add_plot(parser, "the regions of the plane, the weights, or the attention")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    from mi_ref.algzoo import load, report

    network = load(arguments.network, dtype=arguments.dtype)
    found = report(
        network, arguments.task, n=arguments.n, samples=arguments.samples, seed=arguments.seed
    )
    if arguments.json != output.STDOUT:
        computed = f"{network.backend.name} {arguments.dtype}"
        output.say((arguments.network, "bold"), f"  {type(network).__name__}, {computed}")
        for table in found.tables():
            output.say()
            table.print()
        output.say(("\n" + found.conclusion(), "bold"))
    if arguments.plot is not None:
        found.plot(arguments.plot)
    if arguments.json is not None:
        output.write_record(arguments.json, found.record())
