"""Options that several commands share."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    from mi_ref.analysis.sweeps.sweep import SweepOptions
    from mi_ref.edits.intervention import Places
    from mi_ref.hooks.sites import LayerSite

Place: TypeAlias = int | Literal["all"]
"""A layer, head or position as it was given; negative ones count from the end."""

_SHARED = "the model, and how it is run"


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
    commands: Any,
    name: str,
    summary: str,
    example: str,
    *,
    model: str = "atlas",
    ids: bool = True,
) -> argparse.ArgumentParser:
    """Add a command that runs a model, and return its parser; `ids` as for `text_options`."""
    parents = model_options(model), compute_options(), text_options(ids=ids)
    parser = command(commands, name, summary, example, *parents)
    add_json(parser)
    return parser


def model_options(default: str = "atlas") -> argparse.ArgumentParser:
    """Return the options that choose a checkpoint."""
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group(_SHARED)
    group.add_argument(
        "--model", default=default, metavar="NAME",
        help=f"bundled model, folder, GGUF file, or Hub repository (default: {default})",
    )  # fmt: skip
    add_version(group)
    return options


def add_version(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options that choose a version of a checkpoint: its revision and its GGUF file."""
    parser.add_argument(
        "--revision", metavar="REV", help="branch, tag or commit of a Hub repository"
    )
    parser.add_argument(
        "--filename", metavar="GGUF", help="which GGUF file, if the checkpoint has several"
    )


def compute_options() -> argparse.ArgumentParser:
    """Return the options that say what computes."""
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_argument_group(_SHARED)
    group.add_argument(
        "--backend", default="numpy", metavar="NAME", help="array library (default: numpy)"
    )
    group.add_argument("--device", metavar="DEV", help="device of the backend")
    group.add_argument(
        "--dtype", default="float32", choices=["float32", "float64"],
        help="what everything is computed in (default: float32)",
    )  # fmt: skip
    group.add_argument(
        "--compat", choices=["candle-mi"],
        help="compute as that program does where it differs from HuggingFace",
    )  # fmt: skip
    group.add_argument(
        "--allow-unread-config", action="append", default=[], metavar="KEY",
        help="load although nothing reads this key of config.json; may be repeated",
    )  # fmt: skip
    return options


def text_options(*, ids: bool) -> argparse.ArgumentParser:
    """Return the options for how text becomes tokens; with `ids` the one for none at all too."""
    options = argparse.ArgumentParser(add_help=False)
    group = options.add_mutually_exclusive_group()
    group.add_argument(
        "--bos", action=argparse.BooleanOptionalAction, default=None,
        help="put a beginning-of-sequence token first, or none"
        " (default: as the checkpoint's tokenizer does)",
    )  # fmt: skip
    if ids:
        group.add_argument(
            "--ids", action="store_true",
            help="prompts and tokens are token ids, as 5,17,3, and a --subject is positions:"
            " needs no tokenizer",
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


def add_sweep(parser: argparse.ArgumentParser, where: str = "this file") -> None:
    """Add the options of many runs, which are kept at `where`; `sweep` reads them."""
    parser.add_argument(
        "--rows", type=positive, metavar="N",
        help="runs to do at a time: memory grows with it (default: 16, fewer of long prompts)",
    )  # fmt: skip
    parser.add_argument(
        "--resume", metavar="PATH", help=f"keep finished runs in {where}, and go on from it"
    )


def sweep(arguments: argparse.Namespace) -> SweepOptions:
    """Return how many runs are done, as analyses take it."""
    return {"rows": arguments.rows, "resume": arguments.resume}


def given(arguments: argparse.Namespace, *names: str) -> str:
    """Return which of these options were given, as they are written; empty for none.

    Parameters
    ----------
    arguments : Namespace
        What was parsed.
    *names : str
        Names of attributes; one that was not given is absent, None, False or an empty list.
    """
    found = [
        f"--{name.replace('_', '-')}"
        for name in names
        if (value := getattr(arguments, name, None)) is not None
        and value is not False
        and value != []
    ]
    return ", ".join(found)


def chosen(named: Sequence[Place] | None, default: Places = None) -> Places:
    """Return places as analyses take them, whose word for all is an open slice."""
    if named is None:
        return default
    numbers = [n for n in named if n != "all"]
    return numbers if len(numbers) == len(named) else slice(None)


def numbers(named: Sequence[Place] | None) -> list[int] | None:
    """Return places as plain numbers; None for all."""
    plain = [n for n in named or () if n != "all"]
    return plain if named is not None and len(plain) == len(named) else None


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
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def finite(text: str) -> float:
    """Return a number that is neither infinite nor NaN."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def layer_site(name: str) -> LayerSite:
    """Return the site of that name.

    Raises
    ------
    HookError
        If there is none, or it belongs to no layer.
    """
    from mi_ref.errors import HookError
    from mi_ref.hooks.names import named_site
    from mi_ref.hooks.sites import LayerSite

    site = named_site(name)
    if not isinstance(site, LayerSite):
        raise HookError(f"{site!r} belongs to no layer: name a site that layers have.")
    return site
