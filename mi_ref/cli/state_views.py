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
    # The first token makes all there is.
    later = [n for n, pos in enumerate(found.positions) if pos > 0]
    conclusion = "The first token makes all of the state that there is after it."
    if later:
        share, layer, column = max(
            (found.relative_change(layer, n), layer, n)
            for layer in range(len(found.norms))
            for n in later
        )
        pos = found.positions[column]
        conclusion = (
            f"After the first token, {pos} {model.token_string(found.tokens[pos])!r} changes a"
            f" state most: by {share:.2f} of its norm, in layer {layer}."
        )
    prompts = {"tokens": found.tokens}
    output.show(arguments, model, found, conclusion, prompts=prompts, looked_at=found.positions)


def half_lives(arguments: argparse.Namespace, model: Model) -> None:
    """Show how long each head keeps what is written."""
    from statistics import median

    from mi_ref.analysis.recurrent.state import half_lives

    found = half_lives(model, arguments.prompt, prepend_bos=arguments.bos)
    life, layer, head = max(
        (median(rows), layer, head)
        for layer, heads in enumerate(found.half_lives)
        for head, rows in enumerate(heads)
    )
    conclusion = f"Head {layer}.{head} keeps longest: half of a row is left after {life:.3g} tokens"
    output.show(
        arguments, model, found, f"{conclusion}, in the median.", prompts={"tokens": found.tokens}
    )


def reads(arguments: argparse.Namespace, model: Model) -> None:
    """Show what one position reads of each token."""
    from mi_ref.analysis.recurrent.reads import state_reads

    (query,) = options.numbers(arguments.position) or [-1]
    found = state_reads(model, arguments.prompt, query=query, prepend_bos=arguments.bos)
    weight, layer, head, key = max(
        ((weight, layer, head, key)
         for layer, heads in enumerate(found.weights)
         for head, row in enumerate(heads)
         for key, weight in enumerate(row)),
        key=lambda each: abs(each[0]),
    )  # fmt: skip
    conclusion = (
        f"Head {layer}.{head} reads most: {weight:+.3f} of {key}"
        f" {model.token_string(found.tokens[key])!r}."
    )
    prompts = {"tokens": found.tokens}
    output.show(arguments, model, found, conclusion, prompts=prompts, looked_at=[found.query])


def changes(arguments: argparse.Namespace, model: Model) -> None:
    """Show what is left of the prediction when writes are kept away, or states patched."""
    from mi_ref.output.tables import chance

    patches = arguments.patch_from is not None
    found = (_patching if patches else _knockout if arguments.knockout else _steering)(
        arguments, model
    )
    layer, column = found.strongest()
    cell = found.cells[found.layers.index(layer)][column]
    conclusion = (
        f"In layer {layer}, {found.columns[column]} matters most: KL {cell.kl:.2f} nats,"
        f" {found.target_token!r} from {chance(found.natural)} to"
        f" {chance(cell.probability)}."
    )
    names = ["patched", "source ", "then   "] if patches else ["tokens"]
    prompts = dict(zip(names, found.prompts, strict=True))
    output.show(arguments, model, found, conclusion, prompts=prompts)


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
