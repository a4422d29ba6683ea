"""``mi-ref paths``: which component acts on which other, or on the logits, directly."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output, patching

if TYPE_CHECKING:
    from mi_ref.analysis.patching.paths import Receiver

_EXAMPLE = """\
mi-ref paths --clean "The capital of Italy is" --corrupted "The capital of France is"
  mi-ref paths --clean "The capital of Italy is" --corrupted "The capital of France is" \\
      --sender mlp --receiver v:3 --receiver v:4 --plot paths.png"""

End = tuple[str, int, int | None]
"""Site, layer and head of a receiver; None for all heads."""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "paths", "patch the direct paths between components", _EXAMPLE
    )
    parser.add_argument("--clean", required=True, metavar="TEXT", help="prompt with the answer")
    parser.add_argument(
        "--corrupted", required=True, metavar="TEXT", help="prompt of as many tokens without it"
    )
    options.add_target(parser, "what the clean prompt predicts")
    parser.add_argument(
        "--other", metavar="TOKEN",
        help="the corrupted prompt's answer (default: what that predicts)",
    )  # fmt: skip
    parser.add_argument(
        "--sender", choices=["head", "attn", "mlp"], default="head",
        help="each head, or each layer's attention or MLP (default: head)",
    )  # fmt: skip
    parser.add_argument(
        "--receiver", type=end, action="append", metavar="SITE:LAYER[.HEAD]",
        help="input that paths end at, as q:4.6 or mlp_in:5; may be repeated, and all are patched"
        " together (default: the logits)",
    )  # fmt: skip
    parser.add_argument(
        "--freeze", choices=["attention", "all"], default="attention",
        help="what is held still between: attention, so that a path may lead through MLPs, or"
        " MLPs too (default: attention)",
    )  # fmt: skip
    parser.add_argument(
        "--direction", choices=["denoising", "noising"], default="denoising",
        help="clean into corrupted, or corrupted into clean (default: denoising)",
    )  # fmt: skip
    options.add_places(parser, "--layer", "senders of which layers")
    options.add_places(parser, "--head", "which heads send")
    options.add_places(parser, "--position", "from which positions")
    options.add_sweep(parser)
    options.add_plot(parser, "the grid")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if arguments.head is not None and arguments.sender != "head":
        arguments.refuse("--head is of --sender head")
    output.check(arguments)
    output.check_resume(arguments)
    from mi_ref.analysis.patching.paths import path_patching

    model = output.open_model(arguments)
    found = path_patching(
        model,
        arguments.clean,
        arguments.corrupted,
        senders=arguments.sender,
        receivers=_receivers(arguments.receiver),
        freeze=arguments.freeze,
        direction=arguments.direction,
        metric=patching.metric(arguments, model),
        layers=options.chosen(arguments.layer),
        heads=options.chosen(arguments.head),
        positions=options.chosen(arguments.position),
        prepend_bos=arguments.bos,
        **options.sweep(arguments),
    )
    tokens = [found.base_tokens, found.source_tokens]
    corrupted, clean = tokens if arguments.direction == "denoising" else reversed(tokens)
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"clean    ": clean, "corrupted": corrupted},
        looked_at=[n for n, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b],
    )


def end(text: str) -> End:
    """Return a receiver's site, layer and head."""
    read = re.fullmatch(r"(\w+):(-?\d+)(?:\.(\d+))?", text)
    if read is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no SITE:LAYER or SITE:LAYER.HEAD, such as mlp_in:5 or q:4.6"
        )
    return read[1], int(read[2]), None if read[3] is None else int(read[3])


def _receivers(given: list[End] | None) -> list[Receiver] | None:
    from mi_ref.analysis.patching.paths import Receiver

    if given is None:
        return None
    return [Receiver(options.layer_site(site)[layer], heads=head) for site, layer, head in given]
