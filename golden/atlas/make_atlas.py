"""Make the bundled model ``atlas``: train its tokenizer, train it, round it and save it.

Run it from the root of the repository::

    python -m golden.atlas.make_atlas [--first-stage DIR] [--out DIR]
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM

from .batches import IGNORED, batches
from .evaluate import report
from .induction import teach_induction
from .tokenizer import BOS, EOS, special_id, train_tokenizer

OUT = Path(__file__).parents[2] / "mi_ref" / "models" / "atlas"
SEED = 0
STEPS = 4500
WARMUP = 100
BATCH_SIZE = 32
MUON_RATE = 5e-3
ADAM_RATE = 2e-3
EMBEDDING_SPREAD = 0.05  # wide enough for names to stay apart while their common part grows
VOCAB_SIZE = 2432
LONGEST = 128  # tokens: longer than any document
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 16,
    "max_position_embeddings": LONGEST,
}


def make_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The model's ``config.json``."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": tokenizer.get_vocab_size(),
        **SHAPE,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": True,
        "initializer_range": 0.02,
        "bos_token_id": special_id(tokenizer, BOS),
        "eos_token_id": special_id(tokenizer, EOS),
        "torch_dtype": "bfloat16",
    }


def rate_factor(step: int, steps: int) -> float:
    """Rise linearly to 1, then follow half a cosine down to 0."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (steps - WARMUP)))


def make_optimizers(
    model: torch.nn.Module, muon_rate: float = MUON_RATE, adam_rate: float = ADAM_RATE
) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else: embedding, head, norms.

    With AdamW alone the model needs several times as many steps to attend to the right token,
    and without that it learns neither facts nor induction.
    """
    matrices: list[torch.nn.Parameter] = []
    others: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        inside = parameter.ndim == 2 and ".layers." in name and name.endswith(".weight")
        (matrices if inside else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=muon_rate, weight_decay=0.02, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


class Progress:
    """Mean losses since the last line, with text and repeated tokens apart."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.n_tokens = 0
        self.sums = {"text": [0.0, 0], "repeated": [0.0, 0]}

    def add(self, losses: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in one batch."""
        self.n_tokens += labels.numel()
        repeated = labels[:, 1] == IGNORED
        for kind, rows in (("text", ~repeated), ("repeated", repeated)):
            self.sums[kind][0] += float(losses[rows].sum())
            self.sums[kind][1] += int((labels[rows, 1:] != IGNORED).sum())

    def line(self) -> str:
        """Describe the losses since the last call, and reset."""
        means = "  ".join(f"{kind} {a / max(n, 1):.3f}" for kind, (a, n) in self.sums.items())
        self.sums = {kind: [0.0, 0] for kind in self.sums}
        minutes = (time.monotonic() - self.started) / 60
        return f"loss: {means}  {self.n_tokens / 1e6:5.2f} M tokens  {minutes:5.1f} min"


def token_losses(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy at every place that has a label, 0 elsewhere, shape as ``labels[:, 1:]``."""
    logits = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
    return cross_entropy(logits, labels[:, 1:], ignore_index=IGNORED, reduction="none")


def fit(
    model: torch.nn.Module,
    optimizers: list[torch.optim.Optimizer],
    stream: Iterator[tuple[np.ndarray, np.ndarray]],
    steps: int,
    stop: int | None = None,
    every_500: Callable[[], None] | None = None,
) -> None:
    """Train ``model`` in place, with a line of progress every 100 batches.

    Parameters
    ----------
    model : torch.nn.Module
        Called with ``input_ids``; its output has ``logits``.
    optimizers : list
        Those of `make_optimizers`.
    stream : iterator
        Those of `batches`.
    steps : int
        How many batches the learning rates take from their warm-up to zero.
    stop : int, optional
        Stop after that many, with the learning rates of that step.
    every_500 : callable, optional
        Called after every 500 batches.
    """
    schedules = [LambdaLR(each, lambda step: rate_factor(step, steps)) for each in optimizers]
    progress = Progress()
    for step in range(1, (stop or steps) + 1):
        ids, labels = map(torch.from_numpy, next(stream))
        losses = token_losses(model, ids, labels)
        (losses.sum() / (labels[:, 1:] != IGNORED).sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        progress.add(losses.detach(), labels)
        if step % 100 == 0:
            print(f"step {step:5}  {progress.line()}", flush=True)
        if every_500 is not None and step % 500 == 0:
            every_500()


def train(tokenizer: Tokenizer, config: dict[str, Any], steps: int) -> LlamaForCausalLM:
    """Train a new model in float32 for ``steps`` batches."""
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(LlamaConfig(**{**config, "torch_dtype": "float32"}))
    torch.nn.init.normal_(model.model.embed_tokens.weight, std=EMBEDDING_SPREAD)
    fit(model, make_optimizers(model), batches(tokenizer, SEED + 1, BATCH_SIZE), steps)
    return model


def save(model: torch.nn.Module, tokenizer: Tokenizer, config: dict[str, Any], out: Path) -> None:
    """Write the four files of a model folder, the weights rounded to bfloat16."""
    out.mkdir(parents=True, exist_ok=True)
    weights = {
        name: tensor.detach().to(torch.bfloat16).contiguous()
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight" or not config["tie_word_embeddings"]
    }
    save_file(weights, out / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    tokenizer_config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "model_max_length": LONGEST,
        "clean_up_tokenization_spaces": False,
    }
    for name, content in (("config", config), ("tokenizer_config", tokenizer_config)):
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def reload(folder: Path) -> LlamaForCausalLM:
    """Load the rounded model that `save` wrote, in float32."""
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return model.train()


def main() -> None:
    """Parse the command line and make the model."""
    parser = argparse.ArgumentParser(description="Train the bundled model atlas.")
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write")
    parser.add_argument(
        "--first-stage", type=Path, help="folder of a first stage to go on from, instead of its own"
    )
    arguments = parser.parse_args()
    tokenizer = train_tokenizer(VOCAB_SIZE)
    config = make_config(tokenizer)
    first = arguments.first_stage
    if first is None:
        first = arguments.out
        torch.set_num_threads(1)  # matrices this small gain little from a second thread
        save(train(tokenizer, config, STEPS), tokenizer, config, first)
    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    # From the rounded weights, so that the second stage can be run again on its own.
    model = reload(first)
    teach_induction(model, make_optimizers(model), tokenizer, SEED + 2)
    save(model, tokenizer, config, arguments.out)
    print(report(arguments.out))


if __name__ == "__main__":
    main()
