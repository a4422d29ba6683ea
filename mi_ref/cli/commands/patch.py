"""``mi-ref patch``: which activation of one prompt, put into another's run, carries the answer."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output, patching

_EXAMPLE = """\
mi-ref patch --clean "The capital of Italy is" --corrupted "The capital of France is" \\
      --target " Rome" --other " Paris" --plot patch.png"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "patch", "put one prompt's activations into another's run", _EXAMPLE
    )
    parser.add_argument("--clean", metavar="TEXT", help="prompt with the answer")
    parser.add_argument("--corrupted", metavar="TEXT", help="prompt of as many tokens without it")
    options.add_pairs(parser)
    options.add_target(parser, "what the clean prompt predicts")
    parser.add_argument(
        "--other", metavar="TOKEN",
        help="the corrupted prompt's answer (default: what that predicts)",
    )  # fmt: skip
    parser.add_argument(
        "--by", choices=["position", "head", "neuron", "block"], default="position",
        help="patch a position of a layer, a head, a neuron of --layer, or a position of several"
        " layers at once (default: position)",
    )  # fmt: skip
    parser.add_argument(
        "--direction", choices=["denoising", "noising"],
        help="clean into corrupted, or corrupted into clean (default: denoising)",
    )  # fmt: skip
    parser.add_argument(
        "--site", metavar="NAME", help="hook site (default: resid_pre; of heads, what they write)"
    )
    options.add_places(parser, "--layer", "which layers")
    options.add_places(parser, "--index", "which heads or neurons")
    options.add_places(parser, "--position", "which positions", "all; of neurons, all in one patch")
    parser.add_argument(
        "--block-size", type=options.positive, metavar="N", help="layers in a block (default: 4)"
    )
    options.add_sweep(parser, "this file, of --pairs in this folder")
    options.add_plot(parser, "the grid")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if why := _refusal(arguments):
        arguments.refuse(why)
    output.check(arguments)
    output.check_resume(arguments)
    if arguments.pairs is not None:
        patching.show_pairs(arguments)
        return
    from mi_ref.analysis.arguments.prompts import one_prompt

    model = output.open_model(arguments)
    found = (patching.blocks if arguments.by == "block" else patching.grid)(arguments, model)
    texts = arguments.clean, arguments.corrupted
    clean, corrupted = (one_prompt(model, text, arguments.bos) for text in texts)
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"clean    ": clean, "corrupted": corrupted},
        looked_at=[n for n, (a, b) in enumerate(zip(clean, corrupted, strict=True)) if a != b],
    )


def _refusal(arguments: argparse.Namespace) -> str:
    """Return which options do not go together; empty if all do."""
    if arguments.pairs is not None:
        return _refusal_of_pairs(arguments)
    if arguments.skip:
        return "--skip requires --pairs"
    if None in (arguments.clean, arguments.corrupted):
        return "give --clean and --corrupted, or --pairs with --by block"
    layers = options.numbers(arguments.layer)
    if arguments.by == "neuron" and (layers is None or len(layers) != 1):
        return "--by neuron needs one --layer"
    if arguments.by == "block" and arguments.layer is not None:
        return "--by block patches every layer: leave out --layer"
    if arguments.by in ("neuron", "block") and arguments.site is not None:
        return f"--by {arguments.by} has a site of its own: leave out --site"
    if arguments.by not in ("head", "neuron") and arguments.index is not None:
        return "--index is of --by head and --by neuron"
    if arguments.by != "block" and arguments.block_size is not None:
        return "--block-size is of --by block"
    return ""


def _refusal_of_pairs(arguments: argparse.Namespace) -> str:
    """Return what does not go together with pairs."""
    if arguments.by != "block":
        return "--pairs needs --by block"
    own = ("clean", "corrupted", "target", "other", "direction", "site", "layer", "index",
           "position")  # fmt: skip
    given = options.given(arguments, *own)
    return f"{given}: not beside --pairs" if given else ""
