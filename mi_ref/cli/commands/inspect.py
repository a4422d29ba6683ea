"""``mi-ref inspect``: what a checkpoint is, and whether it would load."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output

_EXAMPLE = """\
mi-ref inspect atlas
  mi-ref inspect HuggingFaceTB/SmolLM-135M"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.command(
        commands, "inspect", "say what a checkpoint is and whether it loads", _EXAMPLE
    )
    parser.add_argument(
        "name", metavar="NAME",
        help="bundled model, folder, GGUF file, or Hub repository, whose weights stay there",
    )  # fmt: skip
    options.add_version(parser)
    options.add_json(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    from mi_ref.checkpoints.inspect import inspect_checkpoint

    found = inspect_checkpoint(
        arguments.name, revision=arguments.revision, filename=arguments.filename
    )
    if arguments.json != output.STDOUT:
        found.print()
    if arguments.json is not None:
        output.write_record(arguments.json, found.record())
