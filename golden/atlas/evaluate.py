"""Measure what the shipped model knows and which circuits it has.

Run it from the root of the repository::

    python -m golden.atlas.evaluate [DIR]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from transformers import LlamaForCausalLM

from .corpus import sentence_case
from .facts import Fact, load_facts
from .phrasings import CLAUSES, HELD_OUT
from .rhymes import FIRST_LINES, RHYMES, SECOND_LINES
from .tokenizer import BOS, ordinary_ids, special_id

SHIPPED = Path(__file__).parents[2] / "mi_ref" / "models" / "atlas"


class Subject:
    """A saved model and its tokenizer, under examination in float32."""

    def __init__(self, folder: Path, model: torch.nn.Module) -> None:
        self.folder = folder
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model: Any = model.eval()

    def token(self, text: str) -> int:
        """The id of a text that is a single token."""
        (token,) = self.tokenizer.encode(text, add_special_tokens=False).ids
        return int(token)

    def probabilities(self, prompt: str) -> torch.Tensor:
        """The model's distribution over the token after ``prompt``."""
        ids = torch.tensor([self.tokenizer.encode(prompt).ids])
        distribution: torch.Tensor = self.model(ids).logits[0, -1].softmax(-1)
        return distribution

    def completes(self, prompt: str, answer: str) -> bool:
        """Whether greedy decoding after ``prompt`` says all of ``answer``."""
        start = self.tokenizer.encode(prompt).ids
        goal = self.tokenizer.encode(answer, add_special_tokens=False).ids
        # Greedy decoding says the answer exactly if each token is the best after those before.
        logits = self.model(torch.tensor([start + goal])).logits[0]
        return bool(logits[len(start) - 1 : -1].argmax(-1).tolist() == goal)


def prompt_and_answer(clause: str, fact: Fact, relation: str) -> tuple[str, str]:
    """Cut a clause that ends in its answer into a prompt and the answer with its space."""
    answer = " " + fact.answer(relation)
    text = sentence_case(fact.fill(clause)).removesuffix(".")
    if not text.endswith(answer):
        raise ValueError(f"The clause {clause!r} does not end in the {relation}.")
    return text.removesuffix(answer), answer


def accuracy(subject: Subject, clause: str, relation: str) -> tuple[float, list[str]]:
    """The share of countries completed correctly, and the names of the others."""
    facts = load_facts()
    wrong = [
        fact.bare_name
        for fact in facts
        if not subject.completes(*prompt_and_answer(clause, fact, relation))
    ]
    return 1 - len(wrong) / len(facts), wrong


def repeated_batch(subject: Subject, period: int, rows: int, seed: int) -> torch.Tensor:
    """Rows of ``<|bos|>`` and the same random tokens twice."""
    generator = torch.Generator().manual_seed(seed)
    vocabulary = torch.tensor(list(ordinary_ids(subject.tokenizer)))
    picks = torch.randint(len(vocabulary), (rows, period), generator=generator)
    bos = torch.full((rows, 1), special_id(subject.tokenizer, BOS))
    return torch.cat([bos, vocabulary[picks], vocabulary[picks]], dim=1)


def share_copied(logits: torch.Tensor, ids: torch.Tensor, period: int) -> float:
    """The share of tokens of the second copy, from its second on, that are predicted correctly."""
    guesses = logits[:, period + 1 : -1].argmax(-1)
    return float((guesses == ids[:, period + 2 :]).float().mean())


def head_scores(subject: Subject, period: int = 24) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Look for induction heads and previous-token heads.

    Returns
    -------
    induction
        Shape ``(n_layers, n_heads)``: the mean attention that tokens of the second copy pay to
        the token after their first occurrence.
    previous
        Shape ``(n_layers, n_heads)``: the mean attention to the token just before.
    copied
        See `share_copied`.
    """
    ids = repeated_batch(subject, period, rows=64, seed=0)
    output = subject.model(ids, output_attentions=True)
    attention = torch.stack(output.attentions).mean(1)  # layer, head, query, key
    induction = attention.diagonal(1 - period, dim1=-2, dim2=-1)[..., 2:].mean(-1)
    previous = attention.diagonal(-1, dim1=-2, dim2=-1)[..., 1:].mean(-1)
    return induction, previous, share_copied(output.logits, ids, period)


def logit_lens(subject: Subject, prompt: str, answer: str) -> list[float]:
    """The probability of ``answer`` read off after the embedding and after each layer."""
    model = subject.model
    states: Sequence[torch.Tensor] = model(
        torch.tensor([subject.tokenizer.encode(prompt).ids]), output_hidden_states=True
    ).hidden_states
    # The last state that transformers returns has been through the final norm already.
    normed = [*(model.model.norm(state) for state in states[:-1]), states[-1]]
    token = subject.token(answer)
    return [float(model.lm_head(state[0, -1]).softmax(-1)[token]) for state in normed]


def rhyme_mass(subject: Subject) -> float:
    """The mean probability that a second line ends in a rhyme, other than the word itself."""
    line = next(line for line in SECOND_LINES if "{epithet}" not in line)
    masses = []
    for first_line in FIRST_LINES:
        for nouns in RHYMES.values():
            for first in nouns:
                prompt = f"{first_line}\n{line}".partition(" {noun}.")[0].format(noun=first)
                probabilities = subject.probabilities(prompt)
                rhymes = [subject.token(f" {noun}") for noun in nouns if noun != first]
                masses.append(float(probabilities[rhymes].sum()))
    return sum(masses) / len(masses)


def _grid(scores: torch.Tensor) -> list[str]:
    return [
        f"  layer {layer}  " + "  ".join(f"{score:.2f}" for score in row)
        for layer, row in enumerate(scores.tolist())
    ]


def knowledge(subject: Subject) -> list[str]:
    """The measures shared by every model of this corpus, in lines to print."""
    prompt = "The capital of France is"
    size = sum(p.numel() for p in subject.model.parameters())
    on_disk = sum(path.stat().st_size for path in subject.folder.iterdir() if path.is_file())
    lines = [
        f"parameters {size:,}; bytes on disk {on_disk:,}",
        f"P(' Paris' | {prompt!r}) = {subject.probabilities(prompt)[subject.token(' Paris')]:.4f}",
        "logit lens of ' Paris', from the embedding to the last layer: "
        + " ".join(f"{p:.3f}" for p in logit_lens(subject, prompt, " Paris")),
        "accuracy over all countries, in phrasings held out of training:",
    ]
    for relation, clauses in HELD_OUT.items():
        for clause in clauses:
            share, wrong = accuracy(subject, clause, relation)
            missed = f"  missed: {', '.join(wrong[:5])}" if wrong else ""
            lines.append(f"  {share:6.1%}  {clause}{missed}")
    share, _ = accuracy(subject, CLAUSES["capital"][0], "capital")
    lines.append(f"  {share:6.1%}  (trained on) {CLAUSES['capital'][0]}")
    lines.append(f"rhymes: {rhyme_mass(subject):.3f} of the probability at the end of a couplet")
    return lines


@torch.no_grad()
def report(folder: Path) -> str:
    """Everything measured, as a table to print."""
    model = LlamaForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    subject = Subject(folder, model)
    lines = knowledge(subject)
    induction, previous, copied = head_scores(subject)
    lines += [f"random tokens copied: {copied:.1%}; induction score by head:", *_grid(induction)]
    lines += ["previous-token score by head:", *_grid(previous)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(Path(sys.argv[1]) if len(sys.argv) > 1 else SHIPPED))
