"""The command line: ``mi-ref lens``, ``hooks``, ``patterns`` and more; one file for each."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from io import TextIOWrapper

from mi_ref.cli import token_ids
from mi_ref.cli.commands import (
    ablate as ablate,
    algzoo as algzoo,
    attribute as attribute,
    converge as converge,
    convert as convert,
    convert_rwkv as convert_rwkv,
    decompose as decompose,
    feedback as feedback,
    heads as heads,
    hooks as hooks,
    inspect as inspect,
    knockout as knockout,
    lens as lens,
    patch as patch,
    paths as paths,
    patterns as patterns,
    positions as positions,
    route as route,
    rwkv_state as rwkv_state,
    steer as steer,
    tokens as tokens,
    trace as trace,
)
from mi_ref.errors import MiRefError

_COMMANDS = (
    lens, patterns, heads, knockout, steer, patch, paths, trace, ablate, attribute, rwkv_state,
    route, converge, decompose, feedback,
    hooks, tokens, positions, inspect, convert, convert_rwkv, algzoo,
)  # fmt: skip
_EPILOG = """\
example:
  mi-ref lens --prompt "The capital of France is"

mi-ref COMMAND --help explains a command."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, 1 for an error, 130 for an interrupt.

    Parameters
    ----------
    argv : sequence of str or None
        Arguments without the program's name; None for the process' own.

    Raises
    ------
    SystemExit
        With status 2 for a wrong usage, 0 for ``--help`` and ``--version``.
    """
    if isinstance(sys.stdout, TextIOWrapper):
        # Tokens hold any character; a terminal that lacks one shows its code.
        sys.stdout.reconfigure(errors="backslashreplace")
    with warnings.catch_warnings():
        warnings.showwarning = _warn
        return _run(_parser().parse_args(argv))


def _run(arguments: argparse.Namespace) -> int:
    token_ids.read(arguments)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough, as in `mi-ref hooks | head`. Python flushes once more on its
        # way out, into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("mi-ref: interrupted\n")
        return 130
    except MiRefError as error:
        sys.stderr.write(f"mi-ref: error: {error}\n")
        return 1
    except MemoryError as error:
        sys.stderr.write(f"mi-ref: error: not enough memory{f': {error}' * bool(str(error))}.\n")
        return 1
    except OSError as error:
        where = "" if error.filename is None else f": {error.filename}"
        sys.stderr.write(f"mi-ref: error: {error.strerror or error}{where}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mi-ref",
        description="Look inside language models, one exact forward pass at a time.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, help="show the program's version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    for command in _COMMANDS:
        command.add(commands)
    return parser


class _Version(argparse.Action):
    """Looks the version up when it is asked for: that takes as long as all else in ``--help``."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        from importlib.metadata import version

        sys.stdout.write(f"mi-ref {version('mi_ref')}\n")
        parser.exit()


def _warn(message: Warning | str, *_: object, **__: object) -> None:
    sys.stderr.write(f"mi-ref: warning: {message}\n")
