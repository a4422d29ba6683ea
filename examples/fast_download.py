"""Look before you download: what a checkpoint is, from a few kilobytes; then all of it.

Headers alone tell sizes, memory and every reason to refuse, so that no weight is fetched in vain.
What was inspected is what is loaded, by commit. Without a network the Hub's cache is tried, and
if that lacks the model, the last line says what to do. Any checkpoint's name is an argument::

    python examples/fast_download.py [--model NAME]
"""

from __future__ import annotations

from time import perf_counter

import mi_ref
from mi_ref import HubError, Model
from mi_ref.cli.script import run

ADVICE = """\
{name} could not be had, for the reasons above. If only the network is missing, run
    hf download {name} --local-dir FOLDER
where there is one and name that folder here; or see it work on a bundled model:
    python examples/fast_download.py --model atlas"""


def fetch(name: str, *, cached: bool) -> Model | None:
    """Inspect, then load; None if loading would be refused, for the reasons in the table."""
    start = perf_counter()
    found = mi_ref.inspect_checkpoint(name, local_files_only=cached)
    found.print()
    looked = perf_counter()
    print(f"inspected in {looked - start:.2f} s, no weight read")
    if found.refusals:
        return None
    model = mi_ref.from_pretrained(name, revision=found.revision, local_files_only=cached)
    print(f"fetched and loaded in {perf_counter() - looked:.2f} s: {model!r}")
    return model


def main(name: str = "HuggingFaceTB/SmolLM-135M") -> Model | None:
    """Print what the checkpoint is and return it loaded; None if it cannot be had."""
    for cached in (False, True):
        try:
            return fetch(name, cached=cached)
        except HubError as error:
            print(f"{'cache' if cached else 'Hub'}: {error}\n")
    print(ADVICE.format(name=name))
    return None


if __name__ == "__main__":
    run(main)
