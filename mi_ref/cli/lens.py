"""``mi-ref lens``: what a model would predict after each layer."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from mi_ref.cli import options

if TYPE_CHECKING:
    from mi_ref.analysis import LogitLens

_EXAMPLE = """\
mi-ref lens --prompt "The capital of France is" --target " Paris" --plot lens.png"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parents = options.model_options(), options.compute_options(), options.text_options()
    parser = options.command(
        commands, "lens", "show what a model predicts after each layer", _EXAMPLE, *parents
    )
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="text to continue")
    parser.add_argument(
        "--target", metavar="TOKEN",
        help="exactly one token to follow, spaces included (default: what the model predicts)",
    )  # fmt: skip
    parser.add_argument(
        "--top", type=_positive, default=5, metavar="K", help="tokens to keep (default: 5)"
    )
    parser.add_argument(
        "--position", type=_position, action="append", metavar="N",
        help="position of the prompt, from 0, or from -1 at its end; may be repeated; or"
        " 'all' for the likeliest token everywhere (default: -1)",
    )  # fmt: skip
    parser.add_argument("--plot", metavar="PATH", help="draw all positions: .png, .svg or .pdf")
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    options.check_output(arguments.json)
    if arguments.plot is not None:
        _check_plot(arguments.plot)
    import mi_ref
    from mi_ref.analysis import logit_lens

    model = mi_ref.from_pretrained(
        arguments.model,
        backend=arguments.backend,
        device=arguments.device,
        dtype=arguments.dtype,
        revision=arguments.revision,
        compat=arguments.compat,
    )
    wanted = arguments.position or [-1]
    everywhere = "all" in wanted
    lens = logit_lens(
        model,
        arguments.prompt,
        target=arguments.target,
        top=arguments.top,
        positions=None if everywhere or arguments.plot is not None else wanted,
        prepend_bos=arguments.bos,
    )
    if arguments.json != options.STDOUT:
        _show(lens, None if everywhere else wanted)
    if arguments.plot is not None:
        lens.plot(arguments.plot)
    if arguments.json is not None:
        options.write_record(arguments.json, lens.record())


def _show(lens: LogitLens, positions: list[int] | None) -> None:
    """Print the model, the prompt's tokens, and what was seen, with a conclusion."""
    model = lens.model
    cfg, dtype = model.cfg, str(model.dtype).rpartition(".")[2]
    count = sum(prod(info.shape) for info in model.source.weights.info.values())
    options.say(
        (model.source.name, "bold"),
        f"  {cfg.model_type}, {cfg.n_layers} layers, d_model {cfg.d_model:,}, {count:,} parameters;"
        f" {model.backend.name} {dtype} on {model.params.embed.device}",
    )
    shown = lens.positions if positions is None else [n % len(lens.tokens) for n in positions]
    options.say(*_tokens(lens, shown), "\n")
    if positions is None:
        lens.grid(_fitting(lens)).print()
        options.say(("\n" + lens.summary(), "bold"))
    for number, position in enumerate(positions or ()):
        if number:
            options.say("\n")
        lens.print(position)
        options.say(("\n" + lens.summary(position), "bold"))


def _tokens(lens: LogitLens, shown: Sequence[int]) -> list[str | tuple[str, str]]:
    """Return the prompt's tokens in one line, those looked at in bold."""
    parts: list[str | tuple[str, str]] = [("tokens", "dim")]
    for number, token in enumerate(lens.str_tokens):
        parts += [(f"  {number} ", "dim"), (repr(token), "bold" if number in shown else "")]
    return parts


def _fitting(lens: LogitLens) -> list[int]:
    """Return layers, evenly spaced up to the last, whose columns fit into the terminal."""
    from rich.console import Console

    console = Console()
    longest = max(len(repr(cell.top[0].token)) for row in lens.cells for cell in row)
    beside = 9 + max(len(repr(token)) for token in lens.str_tokens)
    room = max((console.width - beside) // (longest + 2), 2)
    step = -(-lens.n_layers // room) if console.is_terminal else 1
    return list(range(lens.n_layers - 1, -1, -step))[::-1]


def _position(text: str) -> int | Literal["all"]:
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor 'all'") from None


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def _check_plot(path: str) -> None:
    from mi_ref.analysis.lens_plot import check_plot

    options.check_output(path)
    try:
        check_plot(path)
    except (ModuleNotFoundError, ValueError) as error:
        raise options.OutputError(str(error)) from error
