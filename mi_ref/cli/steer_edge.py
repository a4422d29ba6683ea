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
    from mi_ref.output.tables import chance

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
    most = max(found.doses, key=lambda dose: dose.kl)
    what = f"The weight times {most.dose:g}" if found.how == "scale" else f"Weight {most.dose:g}"
    conclusion = (
        f"{what} changes most, KL {chance(most.kl)} nats: {most.target.token!r} goes from"
        f" {chance(most.target.before)} to {chance(most.target.after)}."
    )
    prompts, shown = {"tokens": found.tokens}, [found.query, found.key]
    output.show(arguments, model, found, conclusion, prompts=prompts, looked_at=shown)
