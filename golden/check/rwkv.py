"""A second opinion on the RWKV reference: the authors' own package ``rwkv``, in float32 on the CPU.

`check_package` writes a model as a ``.pth`` file and has the package run it in its own process
(``python -m golden.check.rwkv FOLDER``: which version it runs is decided when it is imported). It
shows logits and states, no hook points, and has its epsilons built in: so the reference is run with
those, whatever the case's config says.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from golden.check.arrays import relative_error
from golden.rwkv.mixes import Array, Weights
from golden.rwkv.reference import Eps, forward, is_rwkv6

BUILT_IN = Eps(layer_norm=1e-5, group_norm=64e-5)
BOUND = 5e-6
"""Relative. Its RWKV-7 has 0.606531 for exp(-1/2), which alone costs 2e-7 of the states."""


def check_package(weights: Weights, tokens: list[list[int]]) -> float:
    """Compare the package with the reference, whole prompts and token by token.

    Returns
    -------
    float
        The greatest relative error of the logits and of each layer's last states.

    Raises
    ------
    AssertionError
        If it is above `BOUND`, naming what is off.
    """
    expected = forward(weights, tokens, BUILT_IN)
    arrays = {"logits": expected.hooks["unembed.hook_out"], **expected.states}
    errors = {}
    for how, found in _run_package(weights, tokens).items():
        for name, array in arrays.items():
            errors[f"{name}, {how}"] = relative_error(found[name], array)
    for name, error in errors.items():
        if not error <= BOUND:
            raise AssertionError(f"the package rwkv is {error:.1e} off the reference: {name}")
    return max(errors.values())


def _run_package(weights: Weights, tokens: list[list[int]]) -> dict[str, dict[str, Array]]:
    with tempfile.TemporaryDirectory() as scratch:
        model = {name: torch.from_numpy(x).float() for name, x in weights.items()}
        torch.save(_with_first_norm(model), Path(scratch) / "model.pth")
        np.save(Path(scratch) / "tokens.npy", np.array(tokens))
        if "blocks.0.ln0.weight" not in model:
            np.save(Path(scratch) / "embedding.npy", weights["emb.weight"])
        done = subprocess.run(
            [sys.executable, "-m", "golden.check.rwkv", scratch],
            cwd=Path(__file__).parents[2],
            env=os.environ | {"RWKV_V7_ON": "0" if is_rwkv6(weights) else "1", "RWKV_CUDA_ON": "0"},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f"the package rwkv failed:\n{done.stdout}\n{done.stderr}")
        return {how: dict(np.load(Path(scratch) / f"{how}.npz")) for how in ("at once", "in steps")}


def _with_first_norm(model: dict[str, Any]) -> dict[str, Any]:
    # The package normalises the embedding when it loads a model and cannot do without; where there
    # is no such norm, `main` puts the embedding back.
    width = model["emb.weight"].shape[1]
    norm = {"blocks.0.ln0.weight": torch.ones(width), "blocks.0.ln0.bias": torch.zeros(width)}
    return norm | model


def main() -> None:
    """Run the model in the folder named on the command line, and write its results."""
    folder = Path(sys.argv[1])
    package: Any = importlib.import_module("rwkv.model")
    model = package.RWKV(str(folder / "model"), "cpu fp32")
    if (folder / "embedding.npy").exists():
        held = "w" if os.environ["RWKV_V7_ON"] == "0" else "z"
        table = torch.from_numpy(np.load(folder / "embedding.npy")).float()
        # Set as a whole: compiled modules hold copies of dictionaries.
        setattr(model, held, getattr(model, held) | {"emb.weight": table})
    prompts = np.load(folder / "tokens.npy").tolist()
    _save(folder / "at once.npz", [model.forward(prompt, None, True) for prompt in prompts])
    _save(folder / "in steps.npz", [_in_steps(model, prompt) for prompt in prompts])


def _in_steps(model: Any, prompt: list[int]) -> tuple[Any, Any]:
    logits, state = [], None
    for token in prompt:
        out, state = model.forward([token], state)
        logits.append(out)
    return torch.stack(logits), state


def _save(path: Path, runs: list[tuple[Any, list[Any]]]) -> None:
    arrays = {"logits": np.stack([logits.numpy() for logits, _ in runs])}
    for index in range(len(runs[0][1])):
        layer, part = divmod(index, 3)
        stacked = np.stack([state[index].numpy() for _, state in runs])
        if part == 1 and os.environ["RWKV_V7_ON"] == "1":
            # [batch, head, value, key] there, [batch, head, key, value] here.
            stacked = stacked.swapaxes(-1, -2)
        arrays[f"{layer}.{('x', 'S', 'x_channel')[part]}"] = stacked
    np.savez(path, **arrays)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
