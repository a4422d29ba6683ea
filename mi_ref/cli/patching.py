"""The grids of ``mi-ref patch``: by position, head, neuron, or block of layers."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref import Model
    from mi_ref.analysis.measure.metrics import Metric
    from mi_ref.analysis.patching.blocks import BlockPatching
    from mi_ref.analysis.patching.grid import PatchingGrid


def grid(arguments: argparse.Namespace, model: Model) -> PatchingGrid:
    """Patch positions, heads or neurons."""
    from mi_ref.analysis.patching.activations import (
        activation_patching,
        head_patching,
        neuron_patching,
    )

    prompts = model, arguments.clean, arguments.corrupted
    site = None if arguments.site is None else options.layer_site(arguments.site)
    layers, indices = options.chosen(arguments.layer), options.chosen(arguments.index)
    shared: dict[str, Any] = {
        "positions": options.chosen(arguments.position),
        "direction": arguments.direction or "denoising",
        "metric": metric(arguments, model),
        "prepend_bos": arguments.bos,
        **options.sweep(arguments),
    }
    if arguments.by == "neuron":
        return neuron_patching(*prompts, layer=arguments.layer[0], neurons=indices, **shared)
    if arguments.by == "head":
        return head_patching(*prompts, site=site, layers=layers, heads=indices, **shared)
    site = site or options.layer_site("resid_pre")
    return activation_patching(*prompts, site=site, layers=layers, **shared)


def blocks(arguments: argparse.Namespace, model: Model) -> BlockPatching:
    """Patch blocks of layers."""
    from mi_ref.analysis.patching.blocks import block_patching

    # The prompt that is patched, with its own answer, comes first.
    pairs = [(arguments.corrupted, arguments.other), (arguments.clean, arguments.target)]
    if arguments.direction == "noising":
        pairs.reverse()
    (prompt, answer), (counterfactual, other) = pairs
    return block_patching(
        model,
        prompt,
        counterfactual,
        answer=answer,
        other=other,
        block_size=arguments.block_size or 4,
        positions=options.chosen(arguments.position),
        prepend_bos=arguments.bos,
        **options.sweep(arguments),
    )


def show_pairs(arguments: argparse.Namespace) -> None:
    """Patch blocks of layers in each pair of a file, and show the effect."""
    from mi_ref.analysis.facts.block_pairs import block_patching_pairs
    from mi_ref.analysis.facts.pairs_file import read_fact_pairs

    pairs = read_fact_pairs(arguments.pairs)
    model = output.open_model(arguments)
    found = block_patching_pairs(
        model,
        pairs,
        block_size=arguments.block_size or 4,
        skip=arguments.skip,
        prepend_bos=arguments.bos,
        **options.sweep(arguments),
    )
    output.show(arguments, model, found, found.summary(), prompts={})


def metric(arguments: argparse.Namespace, model: Model) -> Metric | None:
    """Return the logit difference of the two answers, what is not given being predicted."""
    from mi_ref.analysis.arguments.prompts import read_pair
    from mi_ref.analysis.patching.blocks import read_choice

    if arguments.target is None and arguments.other is None:
        return None
    names = ("clean", "corrupted")
    pair = read_pair(
        model, arguments.clean, arguments.corrupted, names=names, prepend_bos=arguments.bos
    )
    return read_choice(model, pair, arguments.target, arguments.other)
