"""``mi-ref rwkv-state``: what a recurrent model's state holds, and what of it matters."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output, state_views

_EXAMPLE = """\
mi-ref rwkv-state --prompt "The capital of France is" --knockout
  mi-ref rwkv-state --prompt "The capital of France is" --position 4 --scale 0.5 --scale 2
  mi-ref rwkv-state --prompt "The capital of France is" --target " Rome" \\
      --patch-from "The capital of Italy is\""""
_INSTEAD = "Of models that attend, mi-ref patterns, heads and knockout show what each token reads."


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "rwkv-state", "look into a recurrent model's state, or change it", _EXAMPLE,
        model="atlas-rwkv7",
    )  # fmt: skip
    options.add_prompt(parser)
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--half-lives", action="store_true", help="how long each head keeps what is written"
    )
    what.add_argument(
        "--reads", action="store_true", help="what each head reads of each token, signed"
    )
    what.add_argument(
        "--knockout", action="store_true", help="keep each token from writing, layer by layer"
    )
    what.add_argument(
        "--scale", type=options.finite, action="append", metavar="X",
        help="multiply what the tokens at --position write, layer by layer; may be repeated",
    )  # fmt: skip
    what.add_argument(
        "--patch-from", metavar="TEXT",
        help="take each head's state from this prompt, before both read the end they share",
    )  # fmt: skip
    options.add_target(parser)
    options.add_places(parser, "--layer", "which layers to change")
    options.add_places(parser, "--position", "at which tokens to look", "all; to read at, -1")
    options.add_sweep(parser)
    options.add_plot(parser, "what the table shows")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if why := _refusal(arguments):
        arguments.refuse(why)
    output.check(arguments)
    output.check_resume(arguments)
    model = output.open_model(arguments, "rwkv_state", _INSTEAD)
    if arguments.half_lives:
        state_views.half_lives(arguments, model)
    elif arguments.reads:
        state_views.reads(arguments, model)
    elif _changes(arguments):
        state_views.changes(arguments, model)
    else:
        state_views.norms(arguments, model)


def _refusal(arguments: argparse.Namespace) -> str:
    """Return which options do not go together; empty if all do."""
    if not _changes(arguments) and options.given(arguments, "target", "layer"):
        return "--target and --layer are of --knockout, --scale and --patch-from"
    swept = options.given(arguments, "rows", "resume")
    if swept and not (arguments.knockout or arguments.scale):
        return f"{swept}: only of --knockout and --scale"
    if arguments.position is not None:
        if arguments.half_lives or arguments.patch_from is not None:
            return "--half-lives and --patch-from are of the whole prompt: leave out --position"
        if arguments.reads and (len(arguments.position) > 1 or "all" in arguments.position):
            return "--reads is of one --position"
    return ""


def _changes(arguments: argparse.Namespace) -> bool:
    """Whether the state is changed, not only looked at."""
    return bool(arguments.knockout or arguments.scale) or arguments.patch_from is not None
