"""Head scores compared with loops over the captured pattern; random repeated prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError, Backend, HookError, Model, ShapeError, TokenError, at
from mi_ref.analysis.attention.heads import KINDS, HeadScores, head_scores
from mi_ref.analysis.attention.repeated_tokens import repeated_tokens

# A token three times, one twice in a row, and one only once.
ROWS = [[5, 17, 5, 5, 9, 17, 3], [2, 2, 8, 9, 2, 8, 9]]


@pytest.fixture(scope="module")
def found(atlas: Model) -> HeadScores:
    return head_scores(atlas)


def keys_of(row: list[int], query: int, kind: str) -> set[int]:
    """Return the keys that a head of that kind looks at, by its definition."""
    earlier = {key for key in range(query) if row[key] == row[query]}
    if kind == "previous_token":
        return {query - 1} & set(range(query))
    return earlier if kind == "duplicate_token" else {key + 1 for key in earlier}


@pytest.mark.parametrize("case", ["llama2", "gemma2", "gpt2"])
def test_scores_are_sums_over_the_pattern(
    backend: Backend, load: Callable[[str, Backend, str], Model], case: str
) -> None:
    model = load(case, backend, "float64")
    matching, every = head_scores(model, ROWS), head_scores(model, ROWS, over="all")
    run = model.run(ROWS, capture=[at.pattern[:]])
    for layer in range(model.cfg.n_layers):
        pattern = model.backend.to_host(run[at.pattern[layer]])
        for head in range(model.cfg.n_heads):
            for kind in KINDS:
                weights = [
                    sum(pattern[row, head, query, key] for key in keys)
                    for row, ids in enumerate(ROWS)
                    for query in range(len(ids))
                    if (keys := keys_of(ids, query, kind))
                ]
                got = matching.grid(kind)[layer][head]
                assert got == pytest.approx(np.mean(weights), rel=1e-12)
                # The measure of TransformerLens: a share of all attention.
                share = np.sum(weights) / pattern[:, head].sum()
                assert every.grid(kind)[layer][head] == pytest.approx(share, rel=1e-12)


def test_on_repeated_tokens_scores_are_means_of_stripes(atlas: Model, found: HeadScores) -> None:
    """Three diagonals of the pattern, as the field measures induction heads."""
    period, tokens = 24, repeated_tokens(atlas)
    run = atlas.run(tokens, capture=[at.pattern[:]], logits="none")
    for layer in range(atlas.cfg.n_layers):
        pattern = run[at.pattern[layer]].astype(np.float64)
        for kind, offset, skip in (
            ("previous_token", -1, 0),
            ("duplicate_token", -period, 1),
            ("induction", 1 - period, 2),
        ):
            stripe = pattern.diagonal(offset, axis1=-2, axis2=-1)[..., skip:].mean((0, 2))
            assert list(found.grid(kind)[layer]) == pytest.approx(stripe, rel=1e-6)  # type: ignore[arg-type]


def test_the_bundled_model_has_two_induction_heads(found: HeadScores) -> None:
    first, second, third, *_ = found.of("induction")
    assert {str(first), str(second)} == {"3.0", "3.1"}
    assert second.score > 0.9
    assert third.score < 0.1
    # They need heads in earlier layers that look at the previous token.
    assert any(head.layer < 3 and head.score > 0.9 for head in found.of("previous_token"))


def test_a_given_prompt_is_scored_too(atlas: Model) -> None:
    text = " tree lamp river stone" * 2
    assert {str(head) for head in head_scores(atlas, text).of("induction")[:2]} <= {"3.0", "3.1"}


def test_repeated_tokens_are_what_they_say(atlas: Model) -> None:
    tokens = repeated_tokens(atlas, period=10, n_prompts=3, seed=4)
    assert tokens.shape == (3, 21)
    assert (tokens[:, 0] == atlas.tokenizer.bos_id).all()
    assert (tokens[:, 1:11] == tokens[:, 11:]).all()
    for row in tokens[:, 1:11].tolist():
        assert len(set(row)) == 10
        assert not {atlas.tokenizer.bos_id, atlas.tokenizer.eos_id} & set(row)
    assert (tokens == repeated_tokens(atlas, period=10, n_prompts=3, seed=4)).all()
    assert (tokens != repeated_tokens(atlas, period=10, n_prompts=3, seed=5)).any()
    assert len({tuple(row) for row in tokens.tolist()}) == 3


def test_a_model_without_tokenizer_gets_no_bos(tiny: Model) -> None:
    assert repeated_tokens(tiny, period=5, n_prompts=2).shape == (2, 10)
    size = tiny.cfg.d_vocab
    with pytest.raises(ShapeError, match=rf"period={size + 1}.*at most the {size} tokens"):
        repeated_tokens(tiny, period=size + 1)
    with pytest.raises(ShapeError, match="n_prompts=0"):
        repeated_tokens(tiny, n_prompts=0)


def test_a_prompt_without_repetition_shows_no_induction(tiny: Model) -> None:
    found = head_scores(tiny, [1, 2, 3, 4])
    assert list(found.scores) == ["previous_token"]
    assert "induction" not in str(found)
    with pytest.raises(ShapeError, match="no token of these prompts occurs twice"):
        found.of("induction")


def test_refusals(tiny: Model, as_users_call: None) -> None:
    with pytest.raises(ValueError, match=r"over='some': expected 'matching' or 'all'"):
        head_scores(tiny, [1, 1], over="some")  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="kind='name_mover'"):
        head_scores(tiny, [1, 1]).of("name_mover")  # type: ignore[arg-type]
    with pytest.raises(TokenError, match="rows of equal length"):
        head_scores(tiny, [[1, 1], [1, 1, 1]])


def test_a_recurrent_model_has_no_heads_of_these_kinds(
    load: Callable[[str, Backend, str], Model],
) -> None:
    model = load("rwkv7", mi_ref.get_backend("numpy"), "float32")
    with pytest.raises(HookError, match=r"at\.pattern"):
        head_scores(model, [1, 2, 1])


def test_table_record_and_plot(found: HeadScores, tmp_path: Path) -> None:
    rows = str(found).splitlines()
    assert "8 × 49 tokens, random and repeated (seed 0)" in rows[0]
    assert len(rows) == 4 + 5
    assert rows[4].split()[-2:] == ["3.1", f"{found.of('induction')[0].score:.3f}"]
    found.save(tmp_path / "heads.json")
    record: Any = json.loads((tmp_path / "heads.json").read_text("utf-8"))
    assert record["provenance"]["seed"] == 0
    assert record["scores"]["induction"] == [list(row) for row in found.grid("induction")]
    assert record["tokens"] == [list(row) for row in found.tokens]
    found.plot(tmp_path / "heads.png", "previous_token")
    assert (tmp_path / "heads.png").read_bytes().startswith(b"\x89PNG")
