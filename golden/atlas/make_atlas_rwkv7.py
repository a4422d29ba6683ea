"""Make the bundled model ``atlas-rwkv7``: an RWKV-7 on the corpus and with the tokenizer of atlas.

Run it from the root of the repository::

    python -m golden.atlas.make_atlas_rwkv7 [--first-stage DIR] [--out DIR]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from .batches import batches, examples
from .evaluate_rwkv7 import SHIPPED, load, report
from .make_atlas import OUT as ATLAS, fit, make_optimizers, save
from .rwkv7 import Rwkv7
from .rwkv7_state import check_chunks
from .slips import slipping
from .tokenizer import BOS, EOS, special_id

SEED = 0
FIRST_STEPS, FIRST_HORIZON = 2000, 7500
"""The first stage stops long before its learning rates have fallen, and the second ends it."""
SECOND_STEPS = 2500
BATCH_SIZE = 32
MUON_RATE = 8e-3
ADAM_RATE = 2e-3
SHAPE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "head_dim": 32,
    "num_heads": 4,
    "intermediate_size": 512,
    "hidden_ratio": 4,
    "decay_low_rank_dim": 16,
    "gate_low_rank_dim": 32,
    "a_low_rank_dim": 16,
    "v_low_rank_dim": 16,
    "value_dim": [128] * 4,
}


def make_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The model's ``config.json``, with the keys of flash-linear-attention."""
    return {
        "architectures": ["RWKV7ForCausalLM"],
        "model_type": "rwkv7",
        "vocab_size": tokenizer.get_vocab_size(),
        **SHAPE,
        "norm_first": True,
        "norm_bias": True,
        "norm_eps": 1e-5,
        # Without this key it would be norm_eps times head_dim, which RWKV-LM has for 64 only.
        "group_norm_eps": 64e-5,
        "hidden_act": "sqrelu",
        "tie_word_embeddings": False,
        "bos_token_id": special_id(tokenizer, BOS),
        "eos_token_id": special_id(tokenizer, EOS),
        "torch_dtype": "bfloat16",
    }


def first_stage(tokenizer: Tokenizer, config: dict[str, Any], out: Path) -> None:
    """Train a new model at nearly full rates and save it, also on the way."""
    torch.manual_seed(SEED)
    model = Rwkv7(config)
    fit(
        model,
        make_optimizers(model, MUON_RATE, ADAM_RATE),
        batches(tokenizer, SEED + 1, BATCH_SIZE),
        FIRST_HORIZON,
        stop=FIRST_STEPS,
        every_500=lambda: save(model, tokenizer, config, out),
    )
    save(model, tokenizer, config, out)


def second_stage(folder: Path, tokenizer: Tokenizer, config: dict[str, Any], out: Path) -> None:
    """Continue from the rounded weights in ``folder`` until the rates are zero; save in ``out``."""
    model = load(folder)
    stream = slipping(examples(tokenizer, SEED + 2), SEED + 2)
    fit(
        model,
        make_optimizers(model, MUON_RATE, ADAM_RATE),
        batches(tokenizer, SEED + 2, BATCH_SIZE, stream),
        SECOND_STEPS,
        every_500=lambda: save(model, tokenizer, config, out),
    )
    save(model, tokenizer, config, out)


def main() -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description="Train the bundled model atlas-rwkv7.")
    parser.add_argument("--out", type=Path, default=SHIPPED, help="the folder to write")
    parser.add_argument(
        "--first-stage", type=Path, help="folder of a first stage to go on from, instead of its own"
    )
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(ATLAS / "tokenizer.json"))
    config = make_config(tokenizer)
    print(f"chunks against single steps: {check_chunks():.1e}", flush=True)
    torch.set_num_threads(1)  # matrices this small gain little from a second thread
    if arguments.first_stage is None:
        first_stage(tokenizer, config, arguments.out)
    second_stage(arguments.first_stage or arguments.out, tokenizer, config, arguments.out)
    print(report(arguments.out))


if __name__ == "__main__":
    main()
