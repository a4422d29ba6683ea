"""Random RWKV models as checkpoints, and the arrays that golden files and fuzzing compare with."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from golden.check.rwkv import check_package
from golden.rwkv.checks import check_rwkv_identities
from golden.rwkv.configs import Config, eps_of, full_config, is_fla, sizes_of
from golden.rwkv.layouts import lay_out
from golden.rwkv.mixes import Array, Weights
from golden.rwkv.reference import forward
from golden.rwkv.weights import check_weights_count, random_weights

MODEL_TYPES = ("rwkv6", "rwkv7")


def record_rwkv(
    config: Config, tokens: list[list[int]], rng: np.random.Generator, folder: Path
) -> tuple[dict[str, Array], dict[str, Any], str]:
    """Write a random model and check its recorded values.

    Returns
    -------
    dict
        Every hook point of the reference, in forward order.
    dict
        What the manifest says of the programs that took part.
    str
        The columns of errors: none for ``.double()``, and the package ``rwkv`` in float32.
    """
    weights, eps = random_weights(sizes_of(config), rng), eps_of(config)
    run = forward(weights, tokens, eps)
    check_rwkv_identities(weights, tokens, eps, run)
    check_weights_count(weights, tokens, eps)
    error = check_package(weights, tokens)
    save_rwkv(weights, config, folder, torch.bfloat16)
    provenance = {
        "versions": {
            "torch": torch.__version__,
            "rwkv": importlib.metadata.version("rwkv"),
            "numpy": np.__version__,
            "python": platform.python_version(),
        }
    }
    return run.hooks, provenance, f"{'-':>9} {error:9.1e}"


def save_rwkv(weights: Weights, config: Config, folder: Path, dtype: torch.dtype) -> None:
    """Write ``config.json`` and ``model.safetensors`` in the layout of `config`."""
    name = "RWKV" if is_fla(config) else "Rwkv"
    architecture = config["model_type"].replace("rwkv", name) + "ForCausalLM"
    full = full_config(config) | {"architectures": [architecture]}
    (folder / "config.json").write_text(json.dumps(full, indent=2, sort_keys=True) + "\n")
    tensors = {
        name: torch.from_numpy(np.ascontiguousarray(x)).to(dtype)
        for name, x in lay_out(weights, config).items()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
