"""How does a prediction respond to more of something? Two dose-response curves.

First the attention from the last token to the subject, in the layer where cutting it costs most.
Scaling a weight near one changes little, so the script also sets the weight outright. Then a
steering vector, the residual stream after one prompt minus that after another, added at several
strengths. Runs offline on the bundled model, or on any checkpoint; a picture of the weights that
were set goes to a file::

    python examples/steering_dose_response.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model, at
from mi_ref.analysis import (
    AttentionDoseResponse,
    DoseResponse,
    attention_dose_response,
    dose_response,
    knockout_grid,
    steering_vector,
)
from mi_ref.cli.script import run

PROMPT, TOWARDS = "The capital of France is", "The capital of Italy is"
SUBJECT, ANSWER = " France", " Rome"


def main(
    name: str = "atlas", picture: str | None = None
) -> tuple[AttentionDoseResponse, DoseResponse]:
    """Print three curves; return those of the set weights and of the vector."""
    model: Model = mi_ref.from_pretrained(name)
    key = model.get_token_position(SUBJECT, PROMPT)
    layer = knockout_grid(model, PROMPT, keys=key).strongest()[0].layer
    print(attention_dose_response(model, PROMPT, layer=layer, key=key), end="\n\n")
    weights = (0.0, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
    attention = attention_dose_response(model, PROMPT, layer=layer, key=key, weights=weights)
    print(attention)
    half = attention.dose_for(0.9, of="probability")
    print(f"The target has 0.9 at a weight of {half:.2f}\n" if half else "Never at 0.9.\n")

    vector = steering_vector(model, [TOWARDS], [PROMPT], at.resid_post[model.cfg.n_layers - 2])
    doses = dose_response(model, PROMPT, vector, (0.25, 0.5, 0.75, 1.0, 2.0), target=ANSWER,
                          positions=[-1])  # fmt: skip
    print(doses)
    if picture:
        attention.plot(picture)
    return attention, doses


if __name__ == "__main__":
    run(main)
