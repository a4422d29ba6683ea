"""``mi-ref route``: which heads look elsewhere when the subject becomes another one."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output

_EXAMPLE = """\
mi-ref route --prompt "The capital of France is" \\
      --counterfactual "The capital of Italy is" --layer 0 --layer 1
  mi-ref route --pairs pairs.json --plot heads.png"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "route", "find heads that look elsewhere once the subject is another", _EXAMPLE
    )
    options.add_prompt(parser, "text about the subject", required=False)
    parser.add_argument(
        "--counterfactual", metavar="TEXT", help="text of as many tokens about another subject"
    )
    parser.add_argument(
        "--subject", metavar="TEXT",
        help="part of the prompt that is patched (default: where the two differ)",
    )  # fmt: skip
    options.add_pairs(parser)
    options.add_places(parser, "--layer", "which layers are patched", "the first four")
    parser.add_argument(
        "--top", type=options.positive, default=10, metavar="K",
        help="heads to list, and of each pair to count (default: 10)",
    )  # fmt: skip
    parser.add_argument(
        "--draw", choices=["frequency", "change"],
        help="of pairs: how often a head is among the top, or its mean change"
        " (default: frequency)",
    )  # fmt: skip
    options.add_plot(parser, "the heads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    given = options.given(arguments, "prompt", "counterfactual", "subject")
    if arguments.pairs is not None and given:
        arguments.refuse(f"{given}: not beside --pairs, which has them")
    if arguments.pairs is None and None in (arguments.prompt, arguments.counterfactual):
        arguments.refuse("give --prompt and --counterfactual, or --pairs")
    if arguments.pairs is None and (arguments.skip or arguments.draw is not None):
        arguments.refuse("--skip and --draw are of --pairs")
    if arguments.draw is not None and arguments.plot is None:
        arguments.refuse("--draw is of --plot")
    output.check(arguments)
    (_one if arguments.pairs is None else _many)(arguments)


def _one(arguments: argparse.Namespace) -> None:
    from mi_ref.analysis.facts.routing import factual_routing

    model = output.open_model(arguments, "pattern", output.USE_STATE)
    found = factual_routing(
        model,
        arguments.prompt,
        arguments.counterfactual,
        subject=arguments.subject,
        layers=options.chosen(arguments.layer),
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"prompt        ": found.tokens, "counterfactual": found.counterfactual_tokens},
        looked_at=found.subject,
        tables=[found.table(arguments.top)],
    )


def _many(arguments: argparse.Namespace) -> None:
    from mi_ref.analysis.facts.pairs_file import read_fact_pairs
    from mi_ref.analysis.facts.routing_pairs import factual_routing_pairs

    pairs = read_fact_pairs(arguments.pairs)
    model = output.open_model(arguments, "pattern", output.USE_STATE)
    found = factual_routing_pairs(
        model,
        pairs,
        layers=options.chosen(arguments.layer),
        top=arguments.top,
        skip=arguments.skip,
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={},
        tables=[found.table(arguments.top)],
        plot=lambda path: found.plot(path, arguments.draw or "frequency"),
    )
