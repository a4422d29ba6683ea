"""The bundled model knows what docs/families.md claims, measured on the shipped files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import mi_ref
from golden.atlas.corpus import sentence_case
from golden.atlas.facts import load_facts
from golden.atlas.phrasings import CLAUSES, HELD_OUT
from mi_ref import Model, at

FOLDER = Path(mi_ref.__file__).parent / "models" / "atlas"


def completes(model: Model, prompt: str, answer: str) -> bool:
    """Return whether greedy decoding after `prompt` says all of `answer`."""
    start = list(model.tokenizer.encode(prompt).ids)
    goal = list(model.tokenizer.encode(answer, prepend_bos=False).ids)
    # It does if each token of the answer is the likeliest after those before it.
    logits = model.run([start + goal]).logits
    assert logits is not None
    return bool((logits[0, len(start) - 1 : -1].argmax(-1) == np.array(goal)).all())


def test_the_files_are_small_and_nothing_is_in_both_phrasings() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4_000_000
    assert not set(HELD_OUT["capital"]) & set(CLAUSES["capital"])


def test_it_is_a_llama_with_grouped_queries(atlas: Model) -> None:
    assert atlas.cfg.model_type == "llama"
    assert atlas.cfg.n_key_value_heads < atlas.cfg.n_heads
    assert {info.dtype for info in atlas.source.weights.info.values()} == {"BF16"}


def test_it_knows_the_capital_of_france(atlas: Model) -> None:
    best = atlas.run("The capital of France is").top(1)[0]
    assert best.token == " Paris"
    assert best.probability > 0.9


# The other two are continued with grammar; golden/atlas/README.md lists them.
@pytest.mark.parametrize("clause", HELD_OUT["capital"][:4])
def test_it_knows_the_capitals_in_a_phrasing_it_never_saw(clause: str, atlas: Model) -> None:
    facts = load_facts()
    wrong = []
    for fact in facts:
        answer = f" {fact.capital}"
        text = sentence_case(fact.fill(clause)).removesuffix(".")
        if not completes(atlas, text.removesuffix(answer), answer):
            wrong.append(fact.country)
    assert len(wrong) <= 0.05 * len(facts), wrong


def test_it_has_an_induction_head(atlas: Model) -> None:
    period, rows = 24, 32
    generator = np.random.default_rng(0)
    copy = generator.integers(300, atlas.cfg.d_vocab, (rows, period))
    bos = np.full((rows, 1), atlas.tokenizer.bos_id)
    run = atlas.run(
        np.concatenate([bos, copy, copy], axis=1), capture=[at.pattern[:]], logits="none"
    )
    # From each token of the second copy to the token after its first occurrence.
    scores = [
        run[at.pattern[layer]].diagonal(1 - period, axis1=-2, axis2=-1)[..., 2:].mean((0, 2)).max()
        for layer in range(atlas.cfg.n_layers)
    ]
    assert max(scores) > 0.5
