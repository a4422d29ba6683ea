"""Whether what this machine writes is what the golden folders hold.

Weights are drawn and stored, so their bytes are equal everywhere. Activations are computed: their
last bits depend on the processor, whose kernels add in different orders. Configs and manifests
name the versions of the programs that wrote them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file

from golden.check.arrays import relative_error

ROUNDING = 1e-14
"""Relative; forty-five times the spacing of float64."""
_STAMPS = ("transformers_version", "versions", "transformers_commit", "sha256")


def differences(new: Path, golden: Path) -> Iterator[str]:
    """Yield a sentence for each file of `new` that differs from the one in `golden`."""
    for path in sorted(new.iterdir()):
        old = golden / path.name
        if not old.exists():
            yield f"{old} does not exist"
        elif old.read_bytes() != path.read_bytes() and (reason := _reason(path, old)):
            yield f"{old} differs from what this machine writes: {reason}"


def _reason(new: Path, old: Path) -> str | None:
    """Return why two files differ by more than rounding and versions; None if they do not."""
    if new.suffix == ".json":
        kept = [_unstamped(json.loads(path.read_text(encoding="utf-8"))) for path in (new, old)]
        return None if kept[0] == kept[1] else "its contents"
    if new.name != "expected.safetensors":
        return "its bytes"
    ours, theirs = load_file(new), load_file(old)
    if ours.keys() != theirs.keys():
        return f"its names: {sorted(ours.keys() ^ theirs.keys())}"
    for name, array in ours.items():
        if array.dtype != theirs[name].dtype or array.shape != theirs[name].shape:
            return f"dtype or shape of {name}"
        error = relative_error(array, theirs[name])
        if not error <= ROUNDING:
            return f"{name}, relative error {error:.1e}"
    return None


def _unstamped(content: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in _STAMPS}
