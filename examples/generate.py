"""Continue a text with the likeliest next token, twenty times, past any end of text.

A transformer reads the whole text again for every token. A recurrent model need not: its state
holds everything it has read, so it reads each token once and writes the same text. Runs offline on
the bundled models, or on any checkpoint::

    python examples/generate.py [--model NAME] [--prompt TEXT]
"""

from __future__ import annotations

from time import perf_counter

import mi_ref
from mi_ref import Model
from mi_ref.cli.script import run
from mi_ref.output.tables import Table

COUNT = 20


def greedy(model: Model, prompt: str, count: int, *, from_state: bool) -> list[int]:
    """Return the ids of `count` new tokens, each the likeliest after those before it."""
    read = list(model.tokenizer.encode(prompt).ids)
    run = model.run(read, logits="last")
    new = [run.top(1)[0].id]
    while len(new) < count:
        if from_state:
            run = model.run(new[-1:], state=run.state, logits="last")
        else:
            run = model.run([*read, *new], logits="last")
        new.append(run.top(1)[0].id)
    return new


def main(name: str = "atlas", prompt: str = "The capital of France is") -> dict[str, list[int]]:
    """Print the text and the speed of each way; return its new tokens."""
    model: Model = mi_ref.from_pretrained(name)
    table = Table(["way", ">tokens per second", "text"], f"{COUNT} tokens after {prompt!r}")
    ways = {"from the whole text": False}
    if model.cfg.recurrent:
        ways["from the state"] = True
    written: dict[str, list[int]] = {}
    for way, from_state in ways.items():
        start = perf_counter()
        written[way] = greedy(model, prompt, COUNT, from_state=from_state)
        seconds = perf_counter() - start
        text = "".join(model.to_str_tokens(written[way]))
        table.add(way, f"{COUNT / seconds:.0f}", repr(text))
    table.print()
    return written


if __name__ == "__main__":
    run(main)
