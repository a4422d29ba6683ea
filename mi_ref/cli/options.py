"""Options that several commands share, and the paths they write to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_ref.errors import MiRefError

STDOUT = "-"


class OutputError(MiRefError):
    """A result cannot be written where it was asked for."""


def command(
    commands: Any, name: str, summary: str, example: str, *parents: argparse.ArgumentParser
) -> argparse.ArgumentParser:
    """Add a command and return its parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}.",
        epilog=f"example:\n  {example}",
        parents=parents,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def model_options() -> argparse.ArgumentParser:
    """Return the options that choose a checkpoint."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument(
        "--model", default="atlas", metavar="NAME",
        help="bundled model, folder, or Hub repository (default: atlas)",
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


def check_output(path: str | None) -> None:
    """Refuse a path that cannot be written to, before anything is computed for it.

    Raises
    ------
    OutputError
        With the reason.
    """
    if path is None or path == STDOUT:
        return
    folder = Path(path).parent
    if Path(path).is_dir():
        raise OutputError(f"{path!r} is a folder: name a file to write.")
    if not folder.is_dir():
        raise OutputError(f"{path!r} cannot be written: there is no folder {str(folder)!r}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path!r} cannot be written: no permission in {str(folder)!r}.")


def write_record(path: str, record: Mapping[str, Any]) -> None:
    """Write a record as JSON to a file or, for ``-``, to standard output."""
    from mi_ref.provenance import json_text, write_json

    if path == STDOUT:
        sys.stdout.write(json_text(record))
    else:
        write_json(path, record)


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line; a part may be a pair of text and rich style."""
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text.assemble(*parts), soft_wrap=True)
