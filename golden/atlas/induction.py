"""Second stage of training: from heads that look one place back to induction heads.

Without help, a model this small would need many times its training time to find the circuit. So for
the first half of this stage a second loss shows two heads where to look when a random sequence
repeats: at the token after the previous occurrence of the current one. Then that loss fades out,
and only the plain loss keeps the circuit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import torch
from tokenizers import Tokenizer
from torch.nn.functional import cross_entropy
from transformers import LlamaForCausalLM

from .batches import IGNORED, batches
from .tokenizer import BOS, ordinary_ids, special_id

STEPS = 2000
WARMUP = 40
MUON_RATE = 8e-3
ADAM_RATE = 2e-3
TEXT_ROWS = 20
REPEATED_ROWS = 20
PERIODS = (8, 40)
LAYER, HEADS = 3, (0, 1)
"""The heads that are shown: both of one key and value head, above the previous-token heads."""
HINT = 0.5
"""Weight of the second loss, until half of the steps are done; none for the last third."""


def repeated_batches(
    tokenizer: Tokenizer, seed: int, rows: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """Endless batches of ``<|bos|>`` and a stretch of random tokens twice, with its length."""
    rng = random.Random(seed)
    vocabulary = ordinary_ids(tokenizer)
    bos = special_id(tokenizer, BOS)
    while True:
        period = rng.randint(*PERIODS)
        copies = [rng.choices(vocabulary, k=period) for _ in range(rows)]
        yield torch.tensor([[bos, *copy, *copy] for copy in copies]), period


def copying_losses(
    model: LlamaForCausalLM, ids: torch.Tensor, period: int
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Score the second copy.

    Returns
    -------
    copying
        Mean cross-entropy of the tokens of the second copy, from its second on.
    looking
        Mean negative log of the attention of the shown heads to the right place.
    attention
        The largest mean attention that one of them pays to it.
    """
    output = model(input_ids=ids, output_attentions=True)
    predicted = output.logits[:, period + 1 : -1].flatten(0, 1)
    copying = cross_entropy(predicted, ids[:, period + 2 :].flatten())
    shown = output.attentions[LAYER][:, HEADS]
    right = shown.diagonal(1 - period, dim1=-2, dim2=-1)[..., 2:]
    return copying, -(right + 1e-6).log().mean(), float(right.detach().mean((0, 2)).max())


def rate_factor(step: int) -> float:
    """Rise linearly to 1, then follow half a cosine down to 0."""
    if step < WARMUP:
        return (step + 1) / WARMUP
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / (STEPS - WARMUP)))


def hint_factor(step: int) -> float:
    """Stay at 1 for half of the steps, then fall to 0 at two thirds."""
    return min(1.0, max(0.0, (2 / 3 - step / STEPS) * 6))


def teach_induction(
    model: LlamaForCausalLM,
    optimizers: list[torch.optim.Optimizer],
    tokenizer: Tokenizer,
    seed: int,
) -> None:
    """Continue training with text and repeated tokens side by side.

    Parameters
    ----------
    model : LlamaForCausalLM
        After the first stage; changed in place.
    optimizers : list
        Muon's and AdamW's, new.
    tokenizer : Tokenizer
        The model's.
    seed : int
        Of the data.
    """
    model.set_attn_implementation("eager")  # the only one that returns attention
    text = batches(tokenizer, seed, TEXT_ROWS)
    repeated = repeated_batches(tokenizer, seed, REPEATED_ROWS)
    rates = (MUON_RATE, ADAM_RATE)
    for step in range(STEPS):
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * rate_factor(step)
        ids, labels = map(torch.from_numpy, next(text))
        logits = model(input_ids=ids).logits[:, :-1].transpose(1, 2)
        reading = cross_entropy(logits, labels[:, 1:], ignore_index=IGNORED)
        copying, looking, attention = copying_losses(model, *next(repeated))
        (reading + copying + HINT * hint_factor(step) * looking).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if step % 50 == 49:
            print(
                f"step {step + 1:5}  text {float(reading):.3f}  repeated {float(copying):.3f}"
                f"  attention {attention:.2f}  hint {hint_factor(step):.2f}",
                flush=True,
            )
