"""What commands print and write: the model, its prompts, a result, and what it comes to."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options
from mi_ref.errors import MiRefError

if TYPE_CHECKING:
    from mi_ref import Model
    from mi_ref.output.result import Result
    from mi_ref.output.tables import Table

STDOUT = "-"
USE_STATE = "Of recurrent models, mi-ref rwkv-state shows what each token reads."


class OutputError(MiRefError):
    """A result cannot be written where it was asked for."""


def check(arguments: argparse.Namespace) -> None:
    """Refuse paths that cannot be written to, before anything is computed for them.

    Raises
    ------
    OutputError
        With the reason.
    """
    if arguments.json != STDOUT:
        check_output(arguments.json)
    plot = getattr(arguments, "plot", None)
    if plot is None:
        return
    from mi_ref.output.plots import check_plot

    check_output(plot)
    try:
        check_plot(plot)
    except (ModuleNotFoundError, ValueError) as error:
        raise OutputError(str(error)) from error


def check_resume(arguments: argparse.Namespace) -> None:
    """Refuse a ``--resume`` that cannot be written to; see `check`."""
    path = arguments.resume
    if path is not None and getattr(arguments, "pairs", None) is not None:
        if Path(path).exists() and not Path(path).is_dir():
            raise OutputError(
                f"{path!r} is a file: name a folder, which keeps a file of each pair."
            )
        return
    check_output(path)


def check_output(path: str | None) -> None:
    """Refuse a path that cannot be written to; see `check`."""
    if path is None:
        return
    folder = Path(path).parent
    if path == STDOUT:
        raise OutputError("'-' is only valid for --json, which then writes to standard output.")
    if Path(path).is_dir() or path.endswith(("/", os.sep)):
        raise OutputError(f"{path!r} is a folder: name a file to write.")
    if not folder.is_dir():
        raise OutputError(f"{path!r} cannot be written: there is no folder {str(folder)!r}.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(f"{path!r} cannot be written: no permission in {str(folder)!r}.")


def open_model(arguments: argparse.Namespace, needs: str | None = None, instead: str = "") -> Model:
    """Load the model that the options name.

    Parameters
    ----------
    arguments : Namespace
        With the options of every analysis.
    needs : str or None
        Hook site that the model must have.
    instead : str
        What to do with one that lacks it, as a sentence.

    Raises
    ------
    HookError
        If it lacks the site.
    """
    import mi_ref
    from mi_ref.errors import HookError

    model = mi_ref.from_pretrained(
        arguments.model,
        backend=arguments.backend,
        device=arguments.device,
        dtype=arguments.dtype,
        revision=arguments.revision,
        filename=arguments.filename,
        allow_unread_config=tuple(arguments.allow_unread_config),
        compat=arguments.compat,
    )
    if needs is not None:
        site = options.layer_site(needs)
        if (why := model.hook_points.absence(site)) is not None:
            raise HookError(f"{site!r} does not exist in this model: {why}. {instead}")
    return model


def show(
    arguments: argparse.Namespace,
    model: Model,
    found: Result,
    conclusion: str,
    *,
    prompts: Mapping[str, Sequence[int]],
    looked_at: Collection[int] = (),
    tables: Sequence[Table] | None = None,
    plot: Callable[[str], None] | None = None,
    record: Mapping[str, Any] | None = None,
) -> None:
    """Print a result, draw it and write it, as the options say.

    Parameters
    ----------
    arguments : Namespace
        With ``json``, and ``plot`` where the command draws.
    model : Model
        What computed.
    found : Result
        What to show.
    conclusion : str
        What it comes to, in a sentence.
    prompts : mapping of str to sequence of int
        Token ids, each with what it is called.
    looked_at : collection of int
        Positions to print in bold.
    tables, plot, record
        In the place of the result's own.
    """
    if arguments.json != STDOUT:
        print_model(model)
        for name, tokens in prompts.items():
            print_tokens(list(map(model.token_string, tokens)), looked_at, name)
        for table in tables or [found.table()]:
            say()
            table.print()
        say(("\n" + conclusion, "bold"))
    if getattr(arguments, "plot", None) is not None:
        (plot or found.plot)(arguments.plot)
    if arguments.json is not None:
        write_record(arguments.json, record or found.record())


def print_model(model: Model) -> None:
    """Print what a model is and what computes it."""
    cfg, dtype = model.cfg, str(model.dtype).rpartition(".")[2]
    count = sum(prod(info.shape) for info in model.source.weights.info.values())
    say(
        (model.origin.name, "bold"),
        f"  {cfg.model_type}, {cfg.n_layers} layers, d_model {cfg.d_model:,}, {count:,} parameters;"
        f" {model.backend.name} {dtype} on {model.compute.device}",
    )


def print_tokens(
    str_tokens: Sequence[str], looked_at: Collection[int], name: str = "tokens"
) -> None:
    """Print a prompt's tokens in one line, those looked at in bold."""
    parts: list[str | tuple[str, str]] = [(name, "dim")]
    for number, token in enumerate(str_tokens):
        parts += [(f"  {number} ", "dim"), (repr(token), "bold" if number in looked_at else "")]
    say(*parts)


def write_record(path: str, record: Mapping[str, Any]) -> None:
    """Write a record as JSON to a file or, for ``-``, to standard output."""
    from mi_ref.output.files import json_text, write_json

    if path == STDOUT:
        sys.stdout.write(json_text(record))
    else:
        write_json(path, record)


def say(*parts: str | tuple[str, str]) -> None:
    """Print a line; a part may be a pair of text and rich style."""
    from rich.console import Console
    from rich.text import Text

    Console(highlight=False).print(Text.assemble(*parts), soft_wrap=True)
