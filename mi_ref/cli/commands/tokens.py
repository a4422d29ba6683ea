"""``mi-ref tokens``: how a model's tokenizer cuts a text."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options

_EXAMPLE = 'mi-ref tokens "The capital of France is"'


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parents = options.model_options(), options.text_options(ids=False)
    parser = options.command(commands, "tokens", "cut a text into tokens", _EXAMPLE, *parents)
    parser.add_argument("text", metavar="TEXT")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command, from the tokenizer's files alone."""
    from mi_ref.checkpoints.find import find_checkpoint
    from mi_ref.checkpoints.recognise import open_tokenizer, read_config
    from mi_ref.output.tables import Styled, Table

    checkpoint = find_checkpoint(
        arguments.model,
        revision=arguments.revision,
        filename=arguments.filename,
        headers_only=True,
    )
    tokenizer = open_tokenizer(checkpoint, read_config(checkpoint))
    found = tokenizer.encode(arguments.text, prepend_bos=arguments.bos)
    table = Table([">index", ">id", "token", "characters", "bytes"])
    rows = zip(found.ids, found.tokens, found.char_spans, found.byte_spans, strict=True)
    for index, (token, text, chars, span) in enumerate(rows):
        table.add(index, token, Styled((repr(text), "bold")), _span(chars), _span(span))
    table.print()


def _span(span: tuple[int, int] | None) -> str:
    return "not in the text" if span is None else f"{span[0]}:{span[1]}"
