"""What ``mi-ref rwkv-state`` shows: the state's size, its memory, what reads it, what needs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref import Model
    from mi_ref.analysis.recurrent.grid import StateGrid


def norms(arguments: argparse.Namespace, model: Model) -> None:
    """Show how large the state is, and how much each token changes it."""
    from mi_ref.analysis.recurrent.state import state_norms

    found = state_norms(
        model,
        arguments.prompt,
        positions=options.chosen(arguments.position),
        prepend_bos=arguments.bos,
    )
    prompts = {"tokens": found.tokens}
    output.show(
        arguments, model, found, found.summary(), prompts=prompts, looked_at=found.positions
    )


def half_lives(arguments: argparse.Namespace, model: Model) -> None:
    """Show how long each head keeps what is written."""
    from mi_ref.analysis.recurrent.state import half_lives

    found = half_lives(model, arguments.prompt, prepend_bos=arguments.bos)
    output.show(arguments, model, found, found.summary(), prompts={"tokens": found.tokens})


def reads(arguments: argparse.Namespace, model: Model) -> None:
    """Show what one position reads of each token."""
    from mi_ref.analysis.recurrent.reads import state_reads

    (query,) = options.numbers(arguments.position) or [-1]
    found = state_reads(model, arguments.prompt, query=query, prepend_bos=arguments.bos)
    prompts = {"tokens": found.tokens}
    output.show(arguments, model, found, found.summary(), prompts=prompts, looked_at=[found.query])


def changes(arguments: argparse.Namespace, model: Model) -> None:
    """Show what is left of the prediction when writes are kept away, or states patched."""
    patches = arguments.patch_from is not None
    found = (_patching if patches else _knockout if arguments.knockout else _steering)(
        arguments, model
    )
    names = ["patched", "source ", "then   "] if patches else ["tokens"]
    prompts = dict(zip(names, found.prompts, strict=True))
    output.show(arguments, model, found, found.summary(), prompts=prompts)


def _knockout(arguments: argparse.Namespace, model: Model) -> StateGrid:
    from mi_ref.analysis.recurrent.sweeps import state_knockout_sweep

    return state_knockout_sweep(
        model,
        arguments.prompt,
        target=arguments.target,
        positions=options.chosen(arguments.position),
        layers=options.chosen(arguments.layer),
        prepend_bos=arguments.bos,
        **options.sweep(arguments),
    )


def _steering(arguments: argparse.Namespace, model: Model) -> StateGrid:
    from mi_ref.analysis.recurrent.sweeps import state_steering_sweep

    return state_steering_sweep(
        model,
        arguments.prompt,
        arguments.scale,
        target=arguments.target,
        positions=options.chosen(arguments.position),
        layers=options.chosen(arguments.layer),
        prepend_bos=arguments.bos,
        **options.sweep(arguments),
    )


def _patching(arguments: argparse.Namespace, model: Model) -> StateGrid:
    from mi_ref.analysis.arguments.prompts import one_prompt
    from mi_ref.analysis.recurrent.sweeps import state_patching
    from mi_ref.errors import TokenError

    texts = arguments.prompt, arguments.patch_from
    own, other = (one_prompt(model, text, arguments.bos) for text in texts)
    shared = 0
    while shared < min(len(own), len(other)) and own[-1 - shared] == other[-1 - shared]:
        shared += 1
    if not 0 < shared < min(len(own), len(other)):
        raise TokenError(
            f"{texts[0]!r} and {texts[1]!r} end on {shared} tokens in common, of {len(own)} and"
            f" {len(other)}: states are patched before such an end, and before it each prompt"
            " needs tokens of its own."
        )
    return state_patching(
        model,
        own[:-shared],
        other[:-shared],
        own[-shared:],
        target=arguments.target,
        layers=options.chosen(arguments.layer),
    )
