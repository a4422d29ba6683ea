"""Does a push on the residual stream die out? Push at each layer and watch the layers after it.

The push is the difference between a prompt and a contrasting one. Where the stream returns to its
natural course, the push is absorbed; at the deepest layer that absorbs it, the strength grows until
that layer no longer does. Runs offline on the bundled model, or on any checkpoint, recurrent ones
included; a picture of all cosines goes to a file::

    python examples/steering_convergence.py [--model NAME] [--plot FILE]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model
from mi_ref.analysis import SteeringConvergence, steering_convergence
from mi_ref.cli.script import run

PROMPT, CONTRAST, ANSWER = "The capital of France is", "The capital of Italy is", " Paris"


def main(name: str = "atlas", picture: str | None = None) -> SteeringConvergence:
    """Print and return which pushes are absorbed."""
    model: Model = mi_ref.from_pretrained(name)
    found = steering_convergence(model, PROMPT, CONTRAST, target=ANSWER)
    print(found)
    absorbed = [push.layer for push in found.pushes if push.absorbed is not None]
    total = len(found.pushes)
    print(f"{len(absorbed)} of {total} layers absorb the push, to a cosine of {found.threshold}.")
    left = [push.strength for push in found.sweep if push.absorbed is None]
    if left:
        print(f"At layer {found.sweep[0].layer} it is no longer absorbed from {min(left):g} on.")
    if picture:
        found.plot(picture)
    return found


if __name__ == "__main__":
    run(main)
