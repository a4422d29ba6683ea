"""Look inside a recurrent model: its prediction, its state, and what the last token reads.

Prints the likeliest next tokens; the size of each head's state at the end; how long each head would
keep its contents by decay alone; how much of each token's value the last token reads from the
state; and what changes if the first token writes nothing into it. Runs offline on the bundled
model, or on any RWKV checkpoint::

    python examples/rwkv_inference.py [--model NAME] [--prompt TEXT]
"""

from __future__ import annotations

import mi_ref
from mi_ref import Model, state_knockout
from mi_ref.analysis.measure.comparison import Comparison, compare
from mi_ref.analysis.recurrent.reads import state_reads
from mi_ref.analysis.recurrent.state import half_lives
from mi_ref.cli.script import run


def main(name: str = "atlas-rwkv7", prompt: str = "The capital of France is") -> Comparison:
    """Print the state and its reads; return the effect of the first token's writes."""
    model: Model = mi_ref.from_pretrained(name)
    if not model.cfg.recurrent:
        raise SystemExit(f"{name} attends and has no state: name an RWKV model.")
    run = model.run(prompt)
    print(run.top(5))
    print("\nlength of each head's state after the last token")
    for result in (run.state, half_lives(model, prompt), state_reads(model, prompt)):
        print(result, end="\n\n")
    first = model.to_str_tokens(prompt)[0]
    print(f"without what the first token, {first!r}, writes")
    changed = compare(run, model.run(prompt, edits=state_knockout([0])), top=5)
    changed.print()
    return changed


if __name__ == "__main__":
    run(main)
