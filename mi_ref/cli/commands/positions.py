"""``mi-ref positions``: which tokens a piece of a prompt is."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref.analysis.geometry.token_positions import TokenPositions

_EXAMPLE = 'mi-ref positions --prompt "The capital of France is" --span France'


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "positions", "say which tokens a piece of a prompt is", _EXAMPLE, ids=False
    )
    options.add_prompt(parser, "text to cut into tokens")
    parser.add_argument(
        "--span", type=_span, action="append", default=[], metavar="TEXT",
        help="piece that the prompt has once; its tokens bear it as a label; may be repeated",
    )  # fmt: skip
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    from mi_ref.analysis.geometry.token_positions import token_positions

    model = output.open_model(arguments)
    labels = {repr(span): span for span in arguments.span}
    found = token_positions(model, arguments.prompt, labels, prepend_bos=arguments.bos)
    marked = [n for label in labels for n in _places(found, label)]
    output.show(
        arguments,
        model,
        found,
        " ".join(_said(found, label) for label in labels) or _size(found),
        prompts={"tokens": found.encoding.ids},
        looked_at=marked,
    )


def _span(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("an empty text has no tokens")
    return text


def _places(found: TokenPositions, label: str) -> tuple[int, ...]:
    """Return a label's positions; none if other spans have all its tokens."""
    return found.positions(label) if {label, f"{label}_final"} & set(found.labels) else ()


def _said(found: TokenPositions, label: str) -> str:
    places = _places(found, label)
    if not places:
        return f"{label} shares its tokens with a piece before it."
    many = "s" if len(places) > 1 else ""
    return f"{label} is position{many} {', '.join(map(str, places))}."


def _size(found: TokenPositions) -> str:
    n_tokens = len(found.encoding.ids)
    return f"{n_tokens} tokens for {len(found.encoding.text)} characters."
