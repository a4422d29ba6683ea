"""``mi-ref attribute``: what each component contributes to a logit by itself."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    pass

_EXAMPLE = """\
mi-ref attribute --prompt "The capital of France is" --target " Paris" --other " Rome\""""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "attribute", "split a logit into what each component contributes", _EXAMPLE
    )
    options.add_prompt(parser)
    options.add_target(parser, None)
    parser.add_argument(
        "--other", metavar="TOKEN",
        help="token whose logit to take off (default: the mean of all logits)",
    )  # fmt: skip
    parser.add_argument(
        "--by", choices=["component", "head", "neuron"], default="component",
        help="whole attention and MLPs, heads, or neurons (default: component)",
    )  # fmt: skip
    options.add_places(parser, "--position", "where to look; the table is of the last one", "-1")
    parser.add_argument(
        "--top", type=options.positive, default=15, metavar="K", help="rows (default: 15)"
    )
    options.add_plot(parser, "the contributions")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    from mi_ref.analysis.residual.logits import logit_attribution

    heads = "result" if arguments.by == "head" else None
    model = output.open_model(arguments, heads, "Use --by component or --by neuron.")
    found = logit_attribution(
        model,
        arguments.prompt,
        arguments.target,
        arguments.other,
        by=arguments.by,
        positions=options.chosen(arguments.position, -1),
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"tokens": found.tokens},
        looked_at=found.positions,
        tables=[found.table(arguments.top)],
    )
