"""``mi-ref steer`` of an attention edge: more and less of its weight."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref import Model


def steer(arguments: argparse.Namespace, model: Model) -> None:
    """Scale or set the edge's weight, and show the effect."""
    from mi_ref.analysis.attention.doses import attention_dose_response

    found = attention_dose_response(
        model,
        arguments.prompt,
        layer=arguments.layer,
        heads=options.chosen(arguments.head),
        query=-1 if arguments.query is None else arguments.query,
        key=0 if arguments.key is None else arguments.key,
        factors=arguments.scale,
        weights=arguments.weight,
        target=arguments.target,
        prepend_bos=arguments.bos,
    )
    prompts, shown = {"tokens": found.tokens}, [found.query, found.key]
    output.show(arguments, model, found, found.summary(), prompts=prompts, looked_at=shown)
