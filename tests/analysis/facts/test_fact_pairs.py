"""Pairs of prompts: which fit, the errors for those that do not, and how files are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import mi_ref
from mi_ref import Model, PairsError, TokenError
from mi_ref.analysis.facts.pairs import (
    FactPair,
    LeftOut,
    PairLike,
    fitting,
    read_fact_pair,
)
from mi_ref.analysis.facts.pairs_file import read_fact_pairs

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
LONG = "The capital of the Gambia is"


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas")


def subject_of(model: Model, subject: Any, prompt: Any = FRANCE, other: Any = ITALY) -> Any:
    return read_fact_pair(model, FactPair(prompt, other, subject), None)[1]


def test_subjects_as_text_positions_or_what_differs(atlas: Model) -> None:
    assert subject_of(atlas, None) == (4,)
    assert subject_of(atlas, "France") == (4,)
    assert subject_of(atlas, "of France") == (3, 4)
    assert subject_of(atlas, [-2, 2]) == (2, 4)
    assert read_fact_pair(atlas, FactPair(FRANCE, ITALY), False)[1] == (3,)


@pytest.mark.parametrize(
    ("subject", "said"),
    [
        ("Spain", "'Spain' occurs 0 times"),
        ("a", "'a' occurs 3 times"),
        ("capital", r"differ from position 4 on, after the subject 'capital' at \[2\]"),
        ([0, 1], r"differ from position 4 on, after the subject \[0, 1\]"),
    ],
)
def test_subjects_that_do_not_fit(atlas: Model, subject: Any, said: str) -> None:
    with pytest.raises(TokenError, match=said):
        subject_of(atlas, subject)


def test_a_subject_in_words_needs_a_prompt_in_words(atlas: Model) -> None:
    ids = [read.tolist()[0] for read in map(atlas.to_tokens, (FRANCE, ITALY))]
    assert subject_of(atlas, 4, *ids) == (4,)
    with pytest.raises(TokenError, match="subject='France' is text, but the prompt is token ids"):
        subject_of(atlas, "France", *ids)


def read(pair: FactPair) -> str:
    if isinstance(pair.prompt, str) and len(pair.prompt) > 1:
        raise TokenError(f"{pair.prompt} is long")
    return f"read {pair.prompt}"


def test_all_faults_come_in_one_error() -> None:
    pairs: list[PairLike] = [("a", "b"), ("cc", "b"), FactPair("d", "b"), ("eee", "b")]
    with pytest.raises(PairsError) as caught:
        fitting(pairs, read, skip=False)
    assert str(caught.value).splitlines() == [
        "2 of 4 pairs do not fit, counted from 0:",
        "  1: cc is long",
        "  3: eee is long",
        "Correct them, or leave them out: skip=True, --skip on the command line.",
    ]


def test_what_is_left_out_is_recorded_with_its_reason() -> None:
    kept, left_out = fitting([("a", "b"), ("cc", "b"), ("d", "b")], read, skip=True)
    assert kept == [(0, "read a"), (2, "read d")]
    assert left_out == (LeftOut(1, "cc is long"),)
    with pytest.raises(PairsError, match=r"1 of 1 pairs do not fit.*\n.*\nNone is left"):
        fitting([("cc", "b")], read, skip=True)
    with pytest.raises(PairsError, match="there are no pairs"):
        fitting([], read, skip=True)


def written(folder: Path, content: Any) -> Path:
    path = folder / "pairs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_a_file_of_pairs(tmp_path: Path) -> None:
    path = written(tmp_path, [
        {"prompt": FRANCE, "counterfactual": ITALY, "subject": "France", "answer": " Paris",
         "other": " Rome"},
        {"prompt": [1, 2], "counterfactual": [1, 3], "subject": [1], "answer": 7},
    ])  # fmt: skip
    assert read_fact_pairs(path) == (
        FactPair(FRANCE, ITALY, "France", " Paris", " Rome"),
        FactPair([1, 2], [1, 3], [1], 7, None),
    )


def test_every_fault_of_a_file_is_listed(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        '[{"prompt": "a", "counterfactual": "b"}, {"prompt": "a", "target": 1}, 3,'
        ' {"prompt": "a", "prompt": "", "counterfactual": true, "other": true,'
        ' "subject": {}, "answer": [1]}]',
    )
    with pytest.raises(PairsError) as caught:
        read_fact_pairs(path)
    assert str(caught.value).splitlines() == [
        f"{path} has faults in its pairs, from 0:",
        "  1: unknown key 'target'; there are prompt, counterfactual, subject, answer, other",
        "  1: 'counterfactual' is missing",
        "  2: 3 is not an object",
        "  3: 'prompt' stands there 2 times",
        "  3: 'prompt' is ''; it is text or a list of whole numbers",
        "  3: 'counterfactual' is True; it is text or a list of whole numbers",
        "  3: 'other' is True; it is text or a whole number",
        "  3: 'subject' is {}; it is text or a list of whole numbers",
        "  3: 'answer' is [1]; it is text or a whole number",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "is no JSON"),
        ("[]", "holds no list of pairs"),
        ('{"prompt": "a", "counterfactual": "b"}', "holds no list of pairs"),
        ("{}", "holds no list of pairs"),
    ],
)
def test_files_of_something_else(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(PairsError, match=said):
        read_fact_pairs(written(tmp_path, content))
