"""``mi-ref knockout``: what is lost when attention edges are cut."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref import Model
    from mi_ref.analysis.attention.knockout import AttentionKnockout
    from mi_ref.analysis.attention.knockout_grid import KnockoutGrid

_EXAMPLE = """\
mi-ref knockout --prompt "The capital of France is" --layer 3 --query -1 --key 4
  mi-ref knockout --prompt "The capital of France is" --grid --plot knockout.png"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "knockout", "cut attention edges and compare the next token", _EXAMPLE
    )
    options.add_prompt(parser)
    parser.add_argument(
        "--grid", action="store_true", help="cut the edges to each key in each layer in turn"
    )
    options.add_places(parser, "--layer", "where to cut", "the middle layer; of a grid, all")
    options.add_places(parser, "--head", "whose edges")
    options.add_places(parser, "--query", "who may no longer look", "-1")
    options.add_places(parser, "--key", "at whom", "0; of a grid, all")
    options.add_target(parser)
    options.add_sweep(parser)
    options.add_plot(parser, "what became of the likeliest tokens; of a grid, the KL")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    swept = options.given(arguments, "rows", "resume")
    if swept and not arguments.grid:
        arguments.refuse(f"{swept}: only of --grid")
    output.check(arguments)
    output.check_resume(arguments)
    model = output.open_model(arguments, "pattern", output.USE_STATE)
    if arguments.grid:
        grid = _grid(arguments, model)
        prompts, shown = {"tokens": grid.tokens}, [grid.position]
        output.show(arguments, model, grid, grid.summary(), prompts=prompts, looked_at=shown)
        return
    found = _cut(arguments, model)
    prompts, shown = {"tokens": found.comparison.tokens}, [*found.queries, *found.keys]
    output.show(arguments, model, found, found.summary(), prompts=prompts, looked_at=shown)


def _cut(arguments: argparse.Namespace, model: Model) -> AttentionKnockout:
    from mi_ref.analysis.attention.knockout import attention_knockout

    return attention_knockout(
        model,
        arguments.prompt,
        layers=options.chosen(arguments.layer),
        heads=options.chosen(arguments.head),
        queries=options.chosen(arguments.query, -1),
        keys=options.chosen(arguments.key, 0),
        target=arguments.target,
        prepend_bos=arguments.bos,
    )


def _grid(arguments: argparse.Namespace, model: Model) -> KnockoutGrid:
    from mi_ref.analysis.attention.knockout_grid import knockout_grid

    every = arguments.query is not None and "all" in arguments.query
    return knockout_grid(
        model,
        arguments.prompt,
        layers=options.chosen(arguments.layer),
        heads=options.chosen(arguments.head),
        # All that come after the key: a key cut from itself too could leave nothing to look at.
        queries=None if every else options.chosen(arguments.query, -1),
        keys=options.chosen(arguments.key),
        target=arguments.target,
        prepend_bos=arguments.bos,
        **options.sweep(arguments),
    )
