"""The bundled recurrent model knows what docs/families.md claims, measured on the shipped files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from golden.atlas.corpus import sentence_case
from golden.atlas.facts import load_facts
from golden.atlas.phrasings import CLAUSES, HELD_OUT
from mi_ref import Model, at, state_knockout

FOLDER = Path(mi_ref.__file__).parent / "models" / "atlas-rwkv7"
PERIOD, ROWS = 16, 24


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas-rwkv7")


def test_the_files_are_small_and_the_tokenizer_is_that_of_atlas() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 4_000_000
    own, other = (f / "tokenizer.json" for f in (FOLDER, FOLDER.parent / "atlas"))
    assert own.read_bytes() == other.read_bytes()


def test_it_knows_the_capital_of_france(atlas: Model) -> None:
    assert atlas.cfg.model_type == "rwkv7"
    best = atlas.run("The capital of France is").top(1)[0]
    assert best.token == " Paris"
    assert best.probability > 0.95


# Most other phrasings are continued with grammar; golden/atlas/README.md lists them.
@pytest.mark.parametrize(
    ("clause", "share"), [(CLAUSES["capital"][0], 0.99), (HELD_OUT["capital"][2], 0.95)]
)
def test_it_knows_the_capitals(clause: str, share: float, atlas: Model) -> None:
    rows, answers = [], []
    for fact in load_facts():
        answer = f" {fact.capital}"
        text = sentence_case(fact.fill(clause)).removesuffix(".")
        start = atlas.tokenizer.encode(text.removesuffix(answer)).ids
        answers.append(atlas.tokenizer.encode(answer, prepend_bos=False).ids)
        rows.append([*start, *answers[-1]])
    run = atlas.run(rows)
    assert run.logits is not None
    best = run.logits.argmax(-1)
    # Greedy decoding says the answer if each of its tokens is the likeliest after those before.
    right = [
        best[n, len(row) - len(answer) - 1 : len(row) - 1].tolist() == list(answer)
        for n, (row, answer) in enumerate(zip(rows, answers, strict=True))
    ]
    assert sum(right) >= share * len(rows)


def copied(model: Model, edits: Any = ()) -> float:
    """Return the share of a repeated sequence's second copy that is predicted."""
    generator = np.random.default_rng(0)
    copy = generator.integers(300, model.cfg.d_vocab, (ROWS, PERIOD))
    bos = np.full((ROWS, 1), model.tokenizer.bos_id)
    run = model.run(np.concatenate([bos, copy, copy], axis=1), edits=edits)
    assert run.logits is not None
    # The first token of the second copy cannot be known to start it again.
    return float((run.logits[:, PERIOD + 1 : -1].argmax(-1) == copy[:, 1:]).mean())


def test_it_copies_from_its_state(atlas: Model) -> None:
    assert copied(atlas) > 0.8
    first_copy = list(range(1, PERIOD + 1))
    assert copied(atlas, state_knockout(first_copy, layers=3)) < 0.1
    # The last layer's time mix is where the copied token comes out.
    assert copied(atlas, [(at.attn_out[3], lambda out, hook: out * 0)]) < 0.05
