"""Look before you download: what a checkpoint is, from a few kilobytes; then load all of it.

Headers alone give the sizes, the memory and every reason to refuse, so that no download is wasted.
The script loads the commit that it inspected. Without a network it tries the Hub's cache, and if
that lacks the model, the last line says what to do. Takes any checkpoint's name::

    python examples/fast_download.py [--model NAME]
"""

from __future__ import annotations

from time import perf_counter

import mi_ref
from mi_ref import HubError, Model
from mi_ref.cli.script import run

ADVICE = """\
{name} could not be loaded, for the reasons above. If only the network is missing, run
    hf download {name} --local-dir FOLDER
on a machine with a network and name that folder here; or try a bundled model:
    python examples/fast_download.py --model atlas"""


def fetch(name: str, *, cached: bool) -> Model | None:
    """Inspect, then load; return None if the table gives a reason to refuse."""
    start = perf_counter()
    found = mi_ref.inspect_checkpoint(name, local_files_only=cached)
    found.print()
    looked = perf_counter()
    print(f"inspected in {looked - start:.2f} s without reading a weight")
    if found.refusals:
        return None
    model = mi_ref.from_pretrained(name, revision=found.revision, local_files_only=cached)
    print(f"fetched and loaded in {perf_counter() - looked:.2f} s: {model!r}")
    return model


def main(name: str = "HuggingFaceTB/SmolLM-135M") -> Model | None:
    """Print what the checkpoint is and return it loaded; None if it cannot be loaded."""
    for cached in (False, True):
        try:
            return fetch(name, cached=cached)
        except HubError as error:
            print(f"{'cache' if cached else 'Hub'}: {error}\n")
    print(ADVICE.format(name=name))
    return None


if __name__ == "__main__":
    run(main)
