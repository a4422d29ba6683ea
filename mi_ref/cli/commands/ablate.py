"""``mi-ref ablate``: what is lost without each head, MLP, layer or neuron."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref import Model

_EXAMPLE = """\
mi-ref ablate --prompt "The capital of France is" --what mlp --target " Paris" --other " Rome"
  mi-ref ablate --method resample --prompt "The capital of France is" --target " Paris" \\
      --prompt "The capital of Italy is" --target " Rome\""""


def add(commands: Any) -> None:
    """Add the command to the parser."""
    parser = options.analysis(
        commands, "ablate", "take away heads, MLPs, layers or neurons in turn", _EXAMPLE
    )
    parser.add_argument(
        "--prompt", required=True, action="append", metavar="TEXT",
        help="text to continue; may be repeated, and effects are then averaged",
    )  # fmt: skip
    parser.add_argument(
        "--what", choices=["head", "attn", "mlp", "layer", "neuron"], default="head",
        help="to take away (default: head)",
    )  # fmt: skip
    parser.add_argument(
        "--method", choices=["zero", "mean", "resample"], default="zero",
        help="what to put in its place: zeros, its mean over --reference prompts, or what it is"
        " in one of them; with several --prompt the others are the reference (default: zero)",
    )  # fmt: skip
    parser.add_argument(
        "--reference", action="append", metavar="TEXT", help="of one --prompt; may be repeated"
    )
    _add_followed(parser)
    options.add_places(parser, "--layer", "which layers")
    options.add_places(parser, "--index", "which heads or neurons")
    options.add_places(parser, "--position", "where to take away")
    parser.add_argument(
        "--draws", type=options.positive, metavar="N",
        help="reference prompts to draw when resampling (default: 1)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, metavar="N", help="of the draws (default: 0)")
    parser.add_argument(
        "--top", type=options.positive, default=15, metavar="K", help="rows (default: 15)"
    )
    options.add_sweep(parser)
    options.add_plot(parser, "how far the prediction moves, layers over heads or neurons")
    parser.set_defaults(run=run)


def _add_followed(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target", action="append", metavar="TOKEN",
        help="exactly one token to follow, spaces included; one for each --prompt"
        " (default: none: only how far the prediction moves)",
    )  # fmt: skip
    parser.add_argument(
        "--other", action="append", metavar="TOKEN",
        help="token to compare the target with; one for each --prompt",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    if why := _refusal(arguments):
        arguments.refuse(why)
    output.check(arguments)
    output.check_resume(arguments)
    model = output.open_model(arguments)
    (_one if len(arguments.prompt) == 1 else _several)(arguments, model)


def _refusal(arguments: argparse.Namespace) -> str:
    """Return which options do not go together; empty if all do."""
    n_prompts = len(arguments.prompt)
    for name in ("target", "other"):
        given = getattr(arguments, name)
        if given is not None and len(given) != n_prompts:
            return f"--{name} is one for each --prompt: {n_prompts}, not {len(given)}"
    if n_prompts > 1 and arguments.reference is not None:
        return "--reference is of one --prompt: several are each other's reference"
    if n_prompts == 1 and (arguments.reference is None) != (arguments.method == "zero"):
        return "--reference belongs to --method mean and --method resample of one --prompt"
    if arguments.method != "resample" and (drawn := options.given(arguments, "draws", "seed")):
        return f"{drawn}: only of --method resample"
    if arguments.other is not None and arguments.target is None:
        return "--other is taken off a --target"
    return ""


def _one(arguments: argparse.Namespace, model: Model) -> None:
    from mi_ref.analysis.ablation.prompt import ablation

    found = ablation(
        model,
        arguments.prompt[0],
        reference=arguments.reference or (),
        target=None if arguments.target is None else arguments.target[0],
        other=None if arguments.other is None else arguments.other[0],
        **_shared(arguments),
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"tokens": found.tokens},
        looked_at=[found.position],
        tables=[found.table(arguments.top)],
    )


def _several(arguments: argparse.Namespace, model: Model) -> None:
    from mi_ref.analysis.ablation.dataset import dataset_ablation

    found = dataset_ablation(
        model,
        arguments.prompt,
        targets=arguments.target,
        others=arguments.other,
        **_shared(arguments),
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={f"tokens of {n}": tokens for n, tokens in enumerate(found.tokens)},
        tables=[found.table(arguments.top)],
    )


def _shared(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments that one prompt and several have in common."""
    return {
        "what": arguments.what,
        "method": arguments.method,
        "layers": options.numbers(arguments.layer),
        "indices": options.numbers(arguments.index),
        "positions": options.numbers(arguments.position),
        "draws": arguments.draws or 1,
        "seed": arguments.seed or 0,
        "prepend_bos": arguments.bos,
        **options.sweep(arguments),
    }
