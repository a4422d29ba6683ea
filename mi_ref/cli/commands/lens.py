"""``mi-ref lens``: what a model would predict after each layer."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref.analysis import LogitLens

_EXAMPLE = """\
mi-ref lens --prompt "The capital of France is" --target " Paris" --plot lens.png
  mi-ref lens --ids --prompt 0,389,290,277,1418,268 --target 1955"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "lens", "show what a model predicts after each layer", _EXAMPLE
    )
    options.add_prompt(parser)
    options.add_target(parser)
    parser.add_argument(
        "--top", type=options.positive, default=5, metavar="K", help="tokens to keep (default: 5)"
    )
    parser.add_argument(
        "--position", type=options.place, action="append", metavar="N",
        help="position of the prompt, from 0, or from -1 at its end; may be repeated; or"
        " 'all' for the likeliest token everywhere (default: -1)",
    )  # fmt: skip
    options.add_plot(parser, "all positions")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    from mi_ref.analysis import logit_lens

    wanted = arguments.position or [-1]
    everywhere = "all" in wanted
    model = output.open_model(arguments)
    lens = logit_lens(
        model,
        arguments.prompt,
        target=arguments.target,
        top=arguments.top,
        positions=None if everywhere or arguments.plot is not None else wanted,
        prepend_bos=arguments.bos,
    )
    if arguments.json != output.STDOUT:
        output.print_model(model)
        _show(lens, None if everywhere else wanted)
    if arguments.plot is not None:
        lens.plot(arguments.plot)
    if arguments.json is not None:
        output.write_record(arguments.json, lens.record())


def _show(lens: LogitLens, positions: list[int] | None) -> None:
    """Print the prompt's tokens, and what was seen, with a conclusion."""
    shown = lens.positions if positions is None else [n % len(lens.tokens) for n in positions]
    output.print_tokens(lens.str_tokens, shown)
    if positions is None:
        output.say()
        lens.grid(_fitting(lens)).print()
        output.say(("\n" + lens.summary(), "bold"))
    for number, position in enumerate(positions or ()):
        output.say("\n" * min(number, 1))
        lens.print(position)
        output.say(("\n" + lens.summary(position), "bold"))


def _fitting(lens: LogitLens) -> list[int]:
    """Return layers, evenly spaced up to the last, whose columns fit into the terminal."""
    from rich.console import Console

    console = Console()
    longest = max(len(repr(cell.top[0].token)) for row in lens.cells for cell in row)
    beside = 9 + max(len(repr(token)) for token in lens.str_tokens)
    room = max((console.width - beside) // (longest + 2), 2)
    step = -(-lens.n_layers // room) if console.is_terminal else 1
    return list(range(lens.n_layers - 1, -1, -step))[::-1]
