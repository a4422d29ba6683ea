"""Options that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from mi_ref.interventions import Places
    from mi_ref.sites import LayerSite

Place: TypeAlias = int | Literal["all"]
"""A layer, head or position as it was given; negative ones count from the end."""


def command(
    commands: Any, name: str, summary: str, example: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Add a command and return its parser; ``arguments.refuse(why)`` ends a wrong usage of it."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
        parents=parents,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(refuse=parser.error)
    return parser


def analysis(
    commands: Any, name: str, summary: str, example: str, *, model: str = "atlas"
) -> argparse.ArgumentParser:
    """Add a command that runs a model, and return its parser."""
    parents = model_options(model), compute_options(), text_options()
    parser = command(commands, name, summary, example, *parents)
    add_json(parser)
    return parser


def model_options(default: str = "atlas") -> argparse.ArgumentParser:
    """Return the options that choose a checkpoint."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--model", default=default, metavar="NAME",
        help=f"bundled model, folder, or Hub repository (default: {default})",
    )  # fmt: skip
    add_revision(options)
    return options


def add_revision(parser: argparse.ArgumentParser) -> None:
    """Add the option for a Hub repository's revision."""
    parser.add_argument(
        "--revision", metavar="REV", help="branch, tag or commit of a Hub repository"
    )


def compute_options() -> argparse.ArgumentParser:
    """Return the options that say what computes."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--backend", default="numpy", metavar="NAME", help="array library (default: numpy)"
    )
    options.add_argument("--device", metavar="DEV", help="device of the backend")
    options.add_argument(
        "--dtype", default="float32", choices=["float32", "float64"],
        help="what everything is computed in (default: float32)",
    )  # fmt: skip
    options.add_argument(
        "--compat", choices=["candle-mi"],
        help="compute as that program does where it differs from HuggingFace",
    )  # fmt: skip
    return options


def text_options() -> argparse.ArgumentParser:
    """Return the option for the token that starts a sequence."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, default=None,
        help="put a beginning-of-sequence token first, or none"
        " (default: as the checkpoint's tokenizer does)",
    )  # fmt: skip
    return options


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add the option for a JSON result."""
    parser.add_argument(
        "--json", metavar="PATH",
        help="write everything as JSON; - for standard output, in place of the tables",
    )  # fmt: skip


def add_prompt(
    parser: argparse.ArgumentParser, what: str = "text to continue", *, required: bool = True
) -> None:
    """Add the option for a prompt."""
    parser.add_argument("--prompt", required=required, metavar="TEXT", help=what)


def add_target(
    parser: argparse.ArgumentParser, default: str | None = "what the model predicts"
) -> None:
    """Add the option for the token to follow; a default of None makes it a must."""
    end = "" if default is None else f" (default: {default})"
    parser.add_argument(
        "--target", metavar="TOKEN", required=default is None,
        help=f"exactly one token to follow, spaces included{end}",
    )  # fmt: skip


def add_plot(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the option for a picture of `what`."""
    parser.add_argument("--plot", metavar="PATH", help=f"draw {what}: .png, .svg or .pdf")


def add_places(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup,
    name: str,
    what: str,
    default: str = "all",
) -> None:
    """Add an option that names layers, heads or positions, and may be repeated."""
    parser.add_argument(
        name, type=place, action="append", metavar="N",
        help=f"{what}; may be repeated, or 'all' (default: {default})",
    )  # fmt: skip


def add_pairs(parser: argparse.ArgumentParser) -> None:
    """Add the options for many pairs of prompts in a file."""
    parser.add_argument(
        "--pairs", metavar="FILE",
        help='many pairs: a JSON list of {"prompt": ..., "counterfactual": ...} with, if wanted,'
        ' "subject", "answer" and "other"',
    )  # fmt: skip
    parser.add_argument(
        "--skip", action="store_true", help="leave out pairs that do not fit, and record them"
    )


def add_sweep(parser: argparse.ArgumentParser) -> None:
    """Add the options of many runs."""
    parser.add_argument(
        "--rows", type=positive, metavar="N",
        help="runs to do at a time: memory grows with it (default: 16, fewer of long prompts)",
    )  # fmt: skip
    parser.add_argument(
        "--resume",
        metavar="PATH",
        help="keep finished runs in this file, and go on from it; of --pairs, in this folder",
    )


def chosen(given: Sequence[Place] | None, default: Places = None) -> Places:
    """Return places as analyses take them, whose word for all is an open slice."""
    if given is None:
        return default
    numbers = [n for n in given if n != "all"]
    return numbers if len(numbers) == len(given) else slice(None)


def numbers(given: Sequence[Place] | None) -> list[int] | None:
    """Return places as plain numbers; None for all."""
    plain = [n for n in given or () if n != "all"]
    return plain if given is not None and len(plain) == len(given) else None


def place(text: str) -> Place:
    """Return a place, or 'all'."""
    if text == "all":
        return "all"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a whole number nor 'all'") from None


def positive(text: str) -> int:
    """Return a whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number above 0")
    return int(text)


def finite(text: str) -> float:
    """Return a number that is neither infinite nor NaN."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is no finite number")
    return number


def layer_site(name: str) -> LayerSite:
    """Return the site of that name.

    Raises
    ------
    HookError
        If there is none, or it belongs to no layer.
    """
    from mi_ref.errors import HookError
    from mi_ref.naming import named_site
    from mi_ref.sites import LayerSite

    site = named_site(name)
    if not isinstance(site, LayerSite):
        raise HookError(f"{site!r} belongs to no layer: name a site that layers have.")
    return site
