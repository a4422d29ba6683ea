"""``mi-ref feedback``: layers run over and over, with words fed back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    pass

_EXAMPLE = """\
mi-ref feedback --prompt "The capital of France is" --loop 2 4 --depth 3
  mi-ref feedback --prompt "The capital of France is" --loop 2 4 --word " Rome" --strength 400"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "feedback", "run some layers over and over, and feed words back", _EXAMPLE
    )
    options.add_prompt(parser)
    parser.add_argument(
        "--loop", type=int, nargs=2, required=True, metavar=("FIRST", "STOP"),
        help="first layer of the loop, and the one after its last",
    )  # fmt: skip
    parser.add_argument(
        "--depth", type=options.positive, default=2, metavar="N", help="passes (default: 2)"
    )
    parser.add_argument(
        "--mode", choices=["recurrent", "restart"], default="recurrent",
        help="what a further pass starts from: the loop's output, or what entered it first"
        " (default: recurrent)",
    )  # fmt: skip
    parser.add_argument(
        "--word", action="append", metavar="TOKEN",
        help="exactly one token; the mean embedding of all is fed back; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--strength", type=options.finite, metavar="X",
        help="length of what is fed back; needed with --word",
    )  # fmt: skip
    options.add_places(parser, "--position", "where words are fed back", "-1")
    options.add_plot(parser, "KL from the plain model, pass by pass")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if (arguments.word is None) != (arguments.strength is None):
        arguments.refuse("--word and --strength belong together: give both")
    if arguments.word is None and arguments.position is not None:
        arguments.refuse("--position is of --word")
    output.check(arguments)
    from mi_ref.analysis.arguments.prompts import one_prompt, places
    from mi_ref.analysis.recurrent.depth_loop import Feedback
    from mi_ref.analysis.recurrent.feedback import embedding_direction, recurrent_feedback

    model, feedback = output.open_model(arguments), list[Feedback]()
    if arguments.word is not None:
        direction = embedding_direction(model, arguments.word)
        n_pos = len(one_prompt(model, arguments.prompt, arguments.bos))
        chosen = options.chosen(arguments.position, -1)
        feedback = [
            Feedback(place, direction, arguments.strength)
            for place in places(chosen, n_pos, "positions")
        ]
    found = recurrent_feedback(
        model,
        arguments.prompt,
        loop=tuple(arguments.loop),
        depth=arguments.depth,
        feedback=feedback,
        mode=arguments.mode,
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"tokens": found.tokens},
        looked_at=[position for position, _ in found.feedback],
        record={**found.record(), "words": arguments.word or []},
    )
