"""``mi-ref ablate``: what is lost without each head, MLP, layer or neuron."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref.analysis.ablation import Ablation

_EXAMPLE = """\
mi-ref ablate --prompt "The capital of France is" --what mlp --target " Paris" --other " Rome\""""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "ablate", "take away heads, MLPs, layers or neurons in turn", _EXAMPLE
    )
    options.add_prompt(parser)
    parser.add_argument(
        "--what", choices=["head", "attn", "mlp", "layer", "neuron"], default="head",
        help="to take away (default: head)",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=["zero", "mean", "resample"], default="zero",
        help="what to put in its place: zeros, its mean over --reference prompts, or what it is"
        " in one of them (default: zero)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", action="append", metavar="TEXT", help="prompt; may be repeated"
    )
    options.add_target(parser, "none: only how far the prediction moves")
    parser.add_argument("--other", metavar="TOKEN", help="token to compare the target with")
    options.add_places(parser, "--layer", "which layers")
    options.add_places(parser, "--index", "which heads or neurons")
    options.add_places(parser, "--position", "where to take away")
    parser.add_argument(
        "--draws", type=options.positive, default=1, metavar="N",
        help="reference prompts to draw when resampling (default: 1)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the draws (default: 0)"
    )
    parser.add_argument(
        "--top", type=options.positive, default=15, metavar="K", help="rows (default: 15)"
    )
    options.add_plot(parser, "how far the prediction moves, layers over heads or neurons")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    output.check(arguments)
    from mi_ref.analysis.ablation import ablation

    model = output.open_model(arguments)
    found = ablation(
        model,
        arguments.prompt,
        what=arguments.what,
        method=arguments.method,
        reference=arguments.reference or (),
        target=arguments.target,
        other=arguments.other,
        layers=options.numbers(arguments.layer),
        indices=options.numbers(arguments.index),
        positions=options.numbers(arguments.position),
        draws=arguments.draws,
        seed=arguments.seed,
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        _conclusion(found),
        prompts={"tokens": found.tokens},
        looked_at=[found.position],
        tables=[found.table(arguments.top)],
    )


def _conclusion(found: Ablation) -> str:
    most = found.top(1)[0]
    named = f"{found.what} {most.layer}" + ("" if most.index is None else f".{most.index}")
    if found.what == "attn":
        named = f"attention {most.layer}"
    said = f"The prediction moves most without {named}: KL {most.kl:.4f} nats"
    if found.intact is None or most.logit_difference is None:
        return f"{said}."
    tokens = (repr(found.model.token_string(n)) for n in (found.target, found.other)
              if n is not None)  # fmt: skip
    return (
        f"{said}, logit {' − '.join(tokens)} from {found.intact:.3f} to"
        f" {most.logit_difference:.3f}."
    )
