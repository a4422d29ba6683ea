"""Write the golden folders: ``python -m golden.make_golden [--check] [CASE ...]``.

Each folder holds a tiny random model as the Hub would and every activation that transformers
computes with it in true float64, or for RWKV its reference. See ``README.md``.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors.numpy import save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from golden.capture.modules import Arrays, capture, true_float64
from golden.capture.tables import FAMILIES
from golden.cases import CASES
from golden.cases.case import Case
from golden.check.arrays import check_identities, check_logits, relative_error, worst_error
from golden.check.recorded import differences
from golden.check.rope import check_rope
from golden.rwkv.record import MODEL_TYPES as RWKV, record_rwkv

GOLDEN = Path(__file__).parent / "data"
FILES = ("config_hub.json", "config.json", "model.safetensors", "expected.safetensors")


def build(config: Mapping[str, Any]) -> nn.Module:
    """Build the model of a Hub-style config, in the float type that is current."""
    # A deep copy: transformers writes its defaults into the rope_scaling that it is given.
    keys = copy.deepcopy(dict(config))
    model: nn.Module = AutoModelForCausalLM.from_config(
        AutoConfig.for_model(keys.pop("model_type"), **keys),
        dtype=torch.get_default_dtype(),
        attn_implementation="eager",
        experts_implementation="eager",
    )
    return model.eval()


def randomise(model: nn.Module, rng: np.random.Generator) -> None:
    """Set every parameter to random values that bfloat16 holds exactly.

    The initial weights of transformers are so small that attention is uniform, biases are zero and
    norm gains one, which hides most mistakes. The gains here give scores a spread of about two;
    embeddings stay small so that a wrong epsilon shows even in float32.
    """
    config: Any = model.config
    unit_offset = FAMILIES[config.model_type].unit_offset
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = rng.standard_normal(tuple(parameter.shape))
            module = model.get_submodule(name.rpartition(".")[0])
            if name.endswith("bias"):
                value = 0.5 * noise
            elif "Norm" in type(module).__name__:
                value = 0.3 * noise if unit_offset else 1.0 + 0.3 * noise
            elif isinstance(module, nn.Embedding):
                # Families with a unit offset multiply the embedding by the root of its width.
                value = 0.3 * noise / (np.sqrt(noise.shape[1]) if unit_offset else 1.0)
            else:
                fan_in = parameter.shape[0 if isinstance(module, Conv1D) else -1]
                value = _gain(name) * noise / np.sqrt(fan_in)
            parameter.copy_(torch.from_numpy(value).to(torch.bfloat16))


def _gain(name: str) -> float:
    if name.endswith("mlp.gate.weight"):
        return 2.0  # a router: its experts must differ clearly
    scored = ("q_proj", "k_proj", "qkv_proj", "c_attn", "query_key_value")
    return 1.5 if any(projection in name for projection in scored) else 1.0


def load(folder: Path, dtype: torch.dtype, config: Any = None) -> nn.Module:
    """Load a folder as a user of transformers would."""
    model: nn.Module = AutoModelForCausalLM.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        attn_implementation="eager",
        experts_implementation="eager",
    )
    return model.eval()


def without_repeats(arrays: Arrays) -> tuple[Arrays, dict[str, str]]:
    """Split `arrays` into the distinct ones and {hook: earlier hook with the identical array}."""
    distinct: Arrays = {}
    same_as: dict[str, str] = {}
    first: dict[tuple[tuple[int, ...], bytes], str] = {}
    for hook, array in arrays.items():
        earlier = first.setdefault((array.shape, array.tobytes()), hook)
        if earlier == hook:
            distinct[hook] = array
        else:
            same_as[hook] = earlier
    return distinct, same_as


def write_case(case: Case, folder: Path) -> str:
    """Write one golden folder, check it, and return a line about it."""
    rng = np.random.default_rng(case.seed)
    tokens = rng.integers(0, case.config["vocab_size"], case.tokens).tolist()
    (folder / "config_hub.json").write_text(_json(case.config))
    record = record_rwkv if case.config["model_type"] in RWKV else record_transformers
    arrays, provenance, errors = record(case.config, tokens, rng, folder)

    distinct, same_as = without_repeats(arrays)
    save_file(distinct, folder / "expected.safetensors")
    manifest = {
        "family": case.config["model_type"],
        "covers": case.covers,
        "tokens": tokens,
        "seed": case.seed,
        "hooks": list(arrays),
        "same_as": same_as,
        **provenance,
        "sha256": {file: _sha256(folder / file) for file in FILES},
    }
    (folder / "manifest.json").write_text(_json(manifest))
    size = sum(path.stat().st_size for path in folder.iterdir())
    return f"{case.name:28} {len(arrays):5} {size / 1000:6.1f} {errors}"


def record_transformers(
    config: Mapping[str, Any], prompt: list[list[int]], rng: np.random.Generator, folder: Path
) -> tuple[Arrays, dict[str, Any], str]:
    """Write a random model and check the values that transformers computes with it.

    Returns
    -------
    dict
        Every hook point, in forward order.
    dict
        What the manifest says of the programs that took part.
    str
        The columns of errors: of ``.double()`` and of float32.
    """
    tokens = torch.tensor(prompt)
    with true_float64():
        model = build(config)
        randomise(model, rng)
        arrays = capture(model, tokens)
        check_rope(model, tokens.shape[1])
        check_logits(model, tokens, arrays)
        check_identities(model, tokens, arrays)
    _save_pretrained(model, folder)
    _check_reload(folder, tokens, arrays)
    double = worst_error(capture(load(folder, torch.float32).double(), tokens), arrays)
    single = worst_error(capture(load(folder, torch.float32), tokens), arrays)
    provenance = {
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "transformers_commit": f"v{transformers.__version__}",
    }
    return arrays, provenance, f"{double:9.1e} {single:9.1e}"


def _save_pretrained(model: nn.Module, folder: Path) -> None:
    halved: Any = copy.deepcopy(model).to(torch.bfloat16)
    with tempfile.TemporaryDirectory() as scratch:
        halved.save_pretrained(scratch)
        for file in ("config.json", "model.safetensors"):
            shutil.copyfile(Path(scratch) / file, folder / file)


def _check_reload(folder: Path, tokens: Tensor, arrays: Arrays) -> None:
    hub = json.loads((folder / "config_hub.json").read_text())
    configs = {
        "config.json": None,
        "config_hub.json": AutoConfig.for_model(hub.pop("model_type"), **hub),
    }
    for file, config in configs.items():
        with true_float64():
            reloaded = capture(load(folder, torch.float64, config), tokens)
        for hook, expected in arrays.items():
            if (error := relative_error(reloaded[hook], expected)) != 0.0:
                raise AssertionError(f"reloaded with {file}, {hook} differs by {error:.1e}")


def _json(value: Any) -> str:
    return json.dumps(dict(value), indent=1) + "\n"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def main() -> None:
    """Write or check the cases named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all")
    parser.add_argument(
        "--check",
        action="store_true",
        help="write nothing; fail where a file would change by more than rounding",
    )
    options = parser.parse_args()
    if unknown := sorted(set(options.cases) - set(CASES)):
        parser.error(f"no case named {', '.join(unknown)}; there are {', '.join(CASES)}")
    torch.set_num_threads(1)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()

    print(f"{'case':28} {'hooks':>5} {'kB':>6} {'.double()':>9} {'float32':>9}")
    faults: list[str] = []
    for name in options.cases or CASES:
        with tempfile.TemporaryDirectory() as scratch:
            new = Path(scratch)
            print(write_case(CASES[name], new))
            if options.check:
                faults += differences(new, GOLDEN / name)
            else:
                shutil.copytree(new, GOLDEN / name, dirs_exist_ok=True)
    if faults:
        raise SystemExit("\n".join(faults))


if __name__ == "__main__":
    main()
