"""A function as the command of a script: each of its parameters is an option.

So an example's ``main(name="atlas", picture=None)`` is run as
``python examples/quick_start.py --model atlas --plot FILE.png``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from inspect import Parameter, getdoc, getmodule, signature

_KNOWN = {
    "name": ("model", "NAME", "checkpoint: a bundled one, a folder, or one of the Hub"),
    "picture": ("plot", "FILE", "draw into this file: .png, .svg or .pdf"),
}
"""Parameters that the commands of ``mi-ref`` call otherwise: option, placeholder, help."""


def run(main: Callable[..., object], arguments: Sequence[str] | None = None) -> None:
    """Call `main` with what the command line says; errors of this package are one message.

    Parameters
    ----------
    main : callable
        Its parameters are text, or None; one without a default is required.
    arguments : sequence of str or None
        None for the script's own.

    Raises
    ------
    SystemExit
        With status 1 if `main` is refused something, 2 for a wrong usage, 0 for ``--help``.
    """
    from mi_ref.errors import MiRefError

    parser = argparse.ArgumentParser(
        description=getdoc(getmodule(main) or main),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for name, parameter in signature(main).parameters.items():
        needed = parameter.default is Parameter.empty
        shown = "" if needed or not parameter.default else f" (default: {parameter.default})"
        option, placeholder, said = _KNOWN.get(name, (name, "TEXT", name))
        parser.add_argument(
            f"--{option}", dest=name, metavar=placeholder, required=needed,
            default=None if needed else parameter.default,
            help=f"{said}{shown}".replace("%", "%%"),
        )  # fmt: skip
    try:
        main(**vars(parser.parse_args(arguments)))
    except MiRefError as error:
        sys.exit(f"{parser.prog}: error: {error}")
