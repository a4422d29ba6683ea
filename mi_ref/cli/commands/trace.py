"""``mi-ref trace``: where restoring activations brings back what noise on the subject took."""

from __future__ import annotations

import argparse
from typing import Any

from mi_ref.cli import options, output

_EXAMPLE = """\
mi-ref trace --prompt "The capital of France is" --subject " France" --plot trace.png"""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "trace", "restore one place after the other of a noised run", _EXAMPLE
    )
    options.add_prompt(parser)
    parser.add_argument(
        "--subject", required=True, metavar="TEXT", help="part of the prompt that gets the noise"
    )
    options.add_target(parser)
    parser.add_argument(
        "--site", default="resid_post", metavar="NAME", help="hook site (default: resid_post)"
    )
    parser.add_argument(
        "--window", type=options.positive, metavar="N",
        help="layers restored together (default: 1 of the residual stream, else 10)",
    )  # fmt: skip
    parser.add_argument(
        "--noise", type=options.finite, default=3.0, metavar="X",
        help="in standard deviations of the embedding (default: 3)",
    )  # fmt: skip
    parser.add_argument(
        "--draws", type=options.positive, default=10, metavar="N", help="of noise (default: 10)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the noise (default: 0)"
    )
    options.add_places(parser, "--layer", "which layers")
    options.add_places(parser, "--position", "which positions")
    options.add_sweep(parser)
    options.add_plot(parser, "the grid")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    output.check_resume(arguments)
    from mi_ref.analysis.patching.tracing import causal_tracing

    model = output.open_model(arguments)
    found = causal_tracing(
        model,
        arguments.prompt,
        subject=arguments.subject,
        target=arguments.target,
        site=options.layer_site(arguments.site),
        window=arguments.window,
        noise=arguments.noise,
        draws=arguments.draws,
        seed=arguments.seed,
        layers=options.chosen(arguments.layer),
        positions=options.chosen(arguments.position),
        prepend_bos=arguments.bos,
        **options.sweep(arguments),
    )
    prompts = {"tokens": found.tokens}
    output.show(arguments, model, found, found.summary(), prompts=prompts, looked_at=found.subject)
