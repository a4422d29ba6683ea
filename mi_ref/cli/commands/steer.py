"""``mi-ref steer``: what more of something does to the next token, dose by dose."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output, steer_edge, steer_vector

_EXAMPLE = """\
mi-ref steer --prompt "The capital of France is" --layer 3 --key 4 --weight 0 --weight 0.5
  mi-ref steer --prompt "The capital of France is" --toward "The capital of Italy is" \\
      --away "The capital of France is" --target " Rome\""""
_INSTEAD = "A steering vector needs no attention: give --toward and --away."


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "steer", "scale an attention edge, or add a steering vector", _EXAMPLE
    )
    options.add_prompt(parser)
    options.add_target(parser)
    parser.add_argument("--layer", type=int, metavar="N", help="where (default: the middle layer)")
    parser.add_argument(
        "--scale", type=options.finite, action="append", metavar="X",
        help="dose, may be repeated: times the edge's weight or the vector (default: 0.5 to 6)",
    )  # fmt: skip
    options.add_plot(parser, "the dose-response curve")
    edge = parser.add_argument_group("an attention edge (unless a vector is asked for)")
    options.add_places(edge, "--head", "whose")
    edge.add_argument("--query", type=int, metavar="N", help="from (default: -1)")
    edge.add_argument("--key", type=int, metavar="N", help="to (default: 0)")
    edge.add_argument(
        "--weight", type=options.finite, action="append", metavar="X",
        help="weight to set in the place of scaling; may be repeated",
    )  # fmt: skip
    vector = parser.add_argument_group("a steering vector")
    for name, what in (("--toward", "more like this prompt"), ("--away", "less like this one")):
        vector.add_argument(name, action="append", metavar="TEXT", help=f"{what}; repeatable")
    vector.add_argument("--site", metavar="NAME", help="hook site (default: resid_post)")
    vector.add_argument(
        "--read", type=int, metavar="N", help="where in these prompts it is read (default: -1)"
    )
    options.add_places(vector, "--position", "where it is added")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    vector = bool(arguments.toward or arguments.away)
    if vector and not (arguments.toward and arguments.away):
        arguments.refuse("a steering vector needs both --toward and --away")
    foreign = ("head", "query", "key", "weight") if vector else ("site", "read", "position")
    if unused := options.given(arguments, *foreign):
        what = "an attention edge" if vector else "a steering vector"
        arguments.refuse(f"{unused}: only of {what}")
    if arguments.weight and arguments.scale:
        arguments.refuse("--weight and --scale are two ways to dose: give one of them")
    output.check(arguments)
    if vector:
        steer_vector.steer(arguments, output.open_model(arguments))
    else:
        steer_edge.steer(arguments, output.open_model(arguments, "pattern", _INSTEAD))
