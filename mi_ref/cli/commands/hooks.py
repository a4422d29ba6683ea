"""``mi-ref hooks``: every place of a model that can be read and changed."""

from __future__ import annotations

import argparse
import re
from typing import Any

from mi_ref.cli import options

_EXAMPLE = "mi-ref hooks --batch 1 --pos 6 --grep attn"


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.command(
        commands, "hooks", "list a model's hook points", _EXAMPLE, options.model_options()
    )
    parser.add_argument(
        "--batch", type=options.positive, metavar="N", help="prompts, for concrete shapes"
    )
    parser.add_argument(
        "--pos", type=options.positive, metavar="N", help="tokens, for concrete shapes"
    )
    parser.add_argument(
        "--grep", type=_pattern, metavar="PATTERN",
        help="only rows in which this regular expression is found",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command, from the checkpoint's headers alone."""
    from mi_ref.checkpoints.inspect import inspect_checkpoint
    from mi_ref.errors import ConfigError, HookError
    from mi_ref.hooks.decoder_points import decoder_hook_points

    found = inspect_checkpoint(
        arguments.model, revision=arguments.revision, filename=arguments.filename
    )
    if found.config is None:
        raise ConfigError(
            f"{found.name} cannot be loaded, so its hook points are unknown:"
            f" mi-ref inspect {found.name} says why."
        )
    points = decoder_hook_points(found.config)
    table = points.table(arguments.batch, arguments.pos)
    if arguments.grep is not None:
        table = table.matching(arguments.grep)
        if not len(table):
            raise HookError(f"no hook point of {found.name} matches {arguments.grep!r}.")
    table.print(narrow=[["at.", "string"], ["meaning", "axes", "shape"]])


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a regular expression: {error}") from None
    return text
