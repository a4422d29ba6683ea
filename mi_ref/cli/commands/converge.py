"""``mi-ref converge``: which pushes on the residual stream a model absorbs."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    pass

_EXAMPLE = """\
mi-ref converge --prompt "The capital of France is" \\
      --contrast "The capital of Italy is" --plot cosines.png"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "converge", "push the residual stream and see where it finds back", _EXAMPLE
    )
    options.add_prompt(parser, "text whose run is pushed")
    parser.add_argument(
        "--contrast", required=True, metavar="TEXT",
        help="text of as many tokens; the push leads away from it",
    )  # fmt: skip
    options.add_target(parser)
    parser.add_argument(
        "--position", type=int, default=-1, metavar="N", help="where to push (default: -1)"
    )
    parser.add_argument(
        "--threshold", type=options.finite, default=0.95, metavar="X",
        help="cosine from which a push counts as absorbed (default: 0.95)",
    )  # fmt: skip
    parser.add_argument(
        "--layer", type=int, metavar="N",
        help="where strengths grow (default: the deepest that absorbs a push)",
    )  # fmt: skip
    parser.add_argument(
        "--strength", type=options.finite, action="append", metavar="X",
        help="times the difference, at that layer; may be repeated (default: 0.5 to 6)",
    )  # fmt: skip
    options.add_plot(parser, "the cosines")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    from mi_ref.analysis.steering.convergence import STRENGTHS, steering_convergence

    model = output.open_model(arguments)
    found = steering_convergence(
        model,
        arguments.prompt,
        arguments.contrast,
        target=arguments.target,
        position=arguments.position,
        threshold=arguments.threshold,
        strengths=arguments.strength or STRENGTHS,
        layer=arguments.layer,
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts=dict(zip(("prompt  ", "contrast"), found.prompts, strict=True)),
        looked_at=[found.position],
    )
