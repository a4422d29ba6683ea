"""``mi-ref decompose``: what wrote the residual stream, and the stream as it grows."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output

_EXAMPLE = """\
mi-ref decompose --prompt "The capital of France is"
  mi-ref decompose --prompt "The capital of France is" --accumulated --target " Paris\""""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "decompose", "split the residual stream into what wrote it", _EXAMPLE
    )
    options.add_prompt(parser)
    options.add_places(parser, "--position", "where to look; the table is of the last one", "-1")
    options.add_plot(parser, "the parts, or the stream as it grows")
    parts = parser.add_argument_group("the parts (unless the stream is asked for)")
    parts.add_argument("--heads", action="store_true", help="split attention into heads")
    parts.add_argument(
        "--neurons", type=int, action="append", metavar="LAYER",
        help="split the MLP of this layer into neurons; may be repeated",
    )  # fmt: skip
    parts.add_argument(
        "--top", type=options.positive, metavar="K",
        help="only the largest shares, of either sign (default: all, in order)",
    )  # fmt: skip
    stream = parser.add_argument_group("the stream")
    stream.add_argument(
        "--accumulated", action="store_true", help="show it after each component has written"
    )
    stream.add_argument("--target", metavar="TOKEN", help="exactly one token whose logit to follow")
    stream.add_argument("--other", metavar="TOKEN", help="token whose logit to take off")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if why := _refusal(arguments):
        arguments.refuse(why)
    output.check(arguments)
    (_stream if arguments.accumulated else _parts)(arguments)


def _refusal(arguments: argparse.Namespace) -> str:
    """Return which options do not go together; empty if all do."""
    foreign = ("heads", "neurons", "top") if arguments.accumulated else ("target", "other")
    if unused := options.given(arguments, *foreign):
        what = "the parts" if arguments.accumulated else "--accumulated"
        return f"{unused}: only of {what}"
    if arguments.other is not None and arguments.target is None:
        return "--other is taken off a --target"
    return ""


def _parts(arguments: argparse.Namespace) -> None:
    from mi_ref.analysis.residual.decomposition import residual_decomposition

    heads = "result" if arguments.heads else None
    model = output.open_model(arguments, heads, "Leave out --heads.")
    found = residual_decomposition(
        model,
        arguments.prompt,
        positions=options.chosen(arguments.position, -1),
        heads=arguments.heads,
        neurons=arguments.neurons or (),
        prepend_bos=arguments.bos,
    )
    shares = {str(c): row[-1] for c, row in zip(found.components, found.shares, strict=True)}
    largest = max(shares, key=lambda name: abs(shares[name]))
    output.show(
        arguments,
        model,
        found,
        f"{largest} makes the largest part: {shares[largest]:+.3f} of the final stream.",
        prompts={"tokens": found.tokens},
        looked_at=found.positions,
        tables=[found.table(arguments.top)],
    )


def _stream(arguments: argparse.Namespace) -> None:
    from mi_ref.analysis.residual.accumulated import accumulated_residual

    model = output.open_model(arguments)
    found = accumulated_residual(
        model,
        arguments.prompt,
        arguments.target,
        arguments.other,
        positions=options.chosen(arguments.position, -1),
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"tokens": found.tokens},
        looked_at=found.positions,
    )
