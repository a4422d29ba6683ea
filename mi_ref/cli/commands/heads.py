"""``mi-ref heads``: which heads look back one token, at repetitions, or at what followed them."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref.analysis.attention.heads import Kind

_EXAMPLE = "mi-ref heads --top 3 --plot induction.png"
_RANDOM = ("period", "n_prompts", "seed")
_KINDS = ["previous_token", "duplicate_token", "induction"]


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(commands, "heads", "classify attention heads", _EXAMPLE)
    options.add_prompt(
        parser, "text to score heads on (default: repeated random tokens)", required=False
    )
    parser.add_argument(
        "--over", choices=["matching", "all"], default="matching",
        help="mean over the queries that have such a key, or over all (default: matching)",
    )  # fmt: skip
    for name, kind, default, what in (
        ("--period", options.positive, 24, "random tokens before they come again"),
        ("--n-prompts", options.positive, 8, "random prompts"),
        ("--seed", int, 0, "of random prompts"),
    ):
        parser.add_argument(name, type=kind, metavar="N", help=f"{what} (default: {default})")
    parser.add_argument(
        "--top", type=options.positive, default=5, metavar="K", help="heads to list (default: 5)"
    )
    parser.add_argument("--kind", choices=_KINDS, help="to draw (default: induction)")
    options.add_plot(parser, "the scores of a kind, layers over heads")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.kind is not None and arguments.plot is None:
        arguments.refuse("--kind is of --plot")
    drawn = {name: getattr(arguments, name) for name in _RANDOM}
    drawn = {name: value for name, value in drawn.items() if value is not None}
    if arguments.prompt is not None and drawn:
        given = options.given(arguments, *drawn)
        arguments.refuse(f"{given}: only of random prompts, without --prompt")
    output.check(arguments)
    from mi_ref.analysis.attention.heads import head_scores

    model = output.open_model(arguments, "pattern", output.USE_STATE)
    found = head_scores(
        model,
        arguments.prompt,
        over=arguments.over,
        prepend_bos=arguments.bos,
        **drawn,
    )
    kind: Kind = arguments.kind or "induction"
    if arguments.plot is not None:
        found.grid(kind)  # Says so now if this prompt cannot show that kind.
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={} if arguments.prompt is None else {"tokens": found.tokens[0]},
        tables=[found.table(arguments.top)],
        plot=lambda path: found.plot(path, kind),
    )
