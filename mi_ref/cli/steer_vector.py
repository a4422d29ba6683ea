"""``mi-ref steer`` with a vector: the difference between prompts, added at several strengths."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from mi_ref.cli import options, output

if TYPE_CHECKING:
    from mi_ref import Model


def steer(arguments: argparse.Namespace, model: Model) -> None:
    """Make the vector, add it, and show the effect."""
    from mi_ref.analysis.arguments.prompts import one_prompt, places
    from mi_ref.analysis.attention.calibration import DOSES
    from mi_ref.analysis.steering.doses import dose_response
    from mi_ref.analysis.steering.vector import steering_vector

    n_layers = model.cfg.n_layers
    middle = n_layers // 2 if arguments.layer is None else arguments.layer
    (layer,) = places(middle, n_layers, "layer")
    vector = steering_vector(
        model,
        arguments.toward,
        arguments.away,
        options.layer_site(arguments.site or "resid_post")[layer],
        position=-1 if arguments.read is None else arguments.read,
        prepend_bos=arguments.bos,
    )
    where = options.numbers(arguments.position)
    n_pos = len(one_prompt(model, arguments.prompt, arguments.bos))
    found = dose_response(
        model,
        arguments.prompt,
        vector,
        arguments.scale or DOSES,
        target=arguments.target,
        positions=None if where is None else places(where, n_pos, "position"),
        prepend_bos=arguments.bos,
    )
    output.show(
        arguments,
        model,
        found,
        found.summary(),
        prompts={"tokens": found.tokens},
        looked_at=range(len(found.tokens)) if found.positions is None else found.positions,
        tables=[vector.table(), found.table()],
        record={**found.record(), "vector": vector.record()},
    )
