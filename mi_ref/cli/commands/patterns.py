"""``mi-ref patterns``: where attention looks."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref.analysis.attention.patterns import AttentionPatterns

_EXAMPLE = """\
mi-ref patterns --prompt "The capital of France is" --layer 3 --plot pattern.png"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(commands, "patterns", "show where attention looks", _EXAMPLE)
    options.add_prompt(parser)
    parser.add_argument(
        "--layer", type=int, metavar="N",
        help="show this layer's heads (default: every layer's mean over heads)",
    )  # fmt: skip
    parser.add_argument(
        "--head", type=int, metavar="N", help="of --layer: the one to conclude about and to draw"
    )
    parser.add_argument(
        "--position", type=int, default=-1, metavar="N", help="from where (default: -1)"
    )
    parser.add_argument(
        "--top", type=options.positive, default=5, metavar="K", help="keys to name (default: 5)"
    )
    options.add_plot(parser, "the pattern of a head, or the mean over a layer's")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.head is not None and arguments.layer is None:
        arguments.refuse("--head is of a layer: say --layer too")
    output.check(arguments)
    from mi_ref.analysis.attention.patterns import attention_patterns

    model = output.open_model(arguments, "pattern", output.USE_STATE)
    layer, head = arguments.layer, arguments.head
    found = attention_patterns(
        model,
        arguments.prompt,
        layers=layer,
        position=arguments.position,
        top=arguments.top,
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary() if head is None else _of_head(found, layer, head),
        prompts={"tokens": found.tokens},
        looked_at=[found.position],
        tables=[found.table(layer)],
        plot=lambda path: found.plot(path, layer, head),
    )


def _of_head(found: AttentionPatterns, layer: int, head: int) -> str:
    """Return where one head looks most, as a sentence."""
    from mi_ref.output.tables import chance

    look = found.look(layer, head)
    key = look.top[0]
    return (
        f"Head {look.layer}.{look.head} looks most at {key.position} {key.token!r}, with"
        f" {chance(key.weight)} of its weight; {chance(look.sink)} is on the first token."
    )
