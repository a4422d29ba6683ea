"""A model in use: prompts in, text out, predictions, and errors for mistakes."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import BackendError, ConfigError, Model, ShapeError, TokenError, at
from mi_ref.errors import ArgumentError

pytestmark = pytest.mark.usefixtures("as_users_call")

WORDS = ["<s>", "</s>", "the", "cat", "sat", "on", "a", "mat", ".", "the cat"]
STORY = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
    " One day, she saw a big, red ball."
)


def word_tokenizer() -> dict[str, Any]:
    """Return a ``tokenizer.json`` with one id per word and ``<s>`` put first."""
    special = [
        {"id": n, "content": WORDS[n], "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for n in (0, 1)
    ]  # fmt: skip
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    bos = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [bos, sequence],
            "pair": [bos, sequence, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}},
        },
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word: n for n, word in enumerate(WORDS)},
            "unk_token": "</s>",
        },
    }


@pytest.fixture(scope="module")
def reader(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A golden model with a tokenizer of words."""
    folder = tmp_path_factory.mktemp("reader")
    for name in ("config.json", "model.safetensors"):
        shutil.copy(repository / "golden" / "data" / "llama2" / name, folder)
    (folder / "tokenizer.json").write_text(json.dumps(word_tokenizer()))
    return mi_ref.from_pretrained(folder)


@pytest.fixture(scope="module")
def stories(shared: Path) -> Model:
    return mi_ref.from_pretrained(shared / "models" / "stories260K")


def ids(model: Model, prompt: Any, **options: Any) -> Any:
    return model.to_tokens(prompt, **options).tolist()


@pytest.mark.bits
def test_text_becomes_ids(reader: Model) -> None:
    assert ids(reader, "the cat sat") == [[0, 2, 3, 4]]
    assert ids(reader, "the cat sat", prepend_bos=False) == [[2, 3, 4]]
    assert ids(reader, ["the cat", "a mat"]) == [[0, 2, 3], [0, 6, 7]]
    run = reader.run("the cat sat")
    assert run.tokens is not None
    assert run.tokens.tolist() == [[0, 2, 3, 4]]
    assert np.array_equal(np.asarray(run.logits), np.asarray(reader.run([0, 2, 3, 4]).logits))
    assert reader.run("the cat", prepend_bos=False).resid.shape == (1, 2, 24)


@pytest.mark.parametrize(
    "prompt",
    [
        [3, 4, 5],
        (3, 4, 5),
        [[3, 4, 5]],
        ((3, 4, 5),),
        np.array([3, 4, 5]),
        np.array([[3, 4, 5]], dtype=np.int32),
        np.array([3, 4, 5], dtype=np.uint16),
        [np.int64(3), np.int32(4), 5],
    ],
    ids=lambda prompt: f"{type(prompt).__name__}-{prompt!r}"[:40],
)
def test_ids_are_taken_as_they_are(prompt: Any, reader: Model) -> None:
    tokens = reader.to_tokens(prompt)
    assert tokens.tolist() == [[3, 4, 5]]
    assert tokens.dtype == np.int64


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "the prompt is empty"),
        ([[]], "the prompt is empty"),
        ([[1, 2], []], "the prompt is empty"),
        (np.zeros((1, 0), dtype=int), "the prompt is empty"),
        (np.zeros((0, 3), dtype=int), "the prompt is empty"),
        ([1, 48], r"token ids \[48\] are out of range: this model's d_vocab is 48"),
        ([1, -1, 99], r"token ids \[-1, 99\] are out of range"),
        ([1.0, 2.0], r"1\.0 is not a token id"),
        ([1, 2.5], r"2\.5 is not a token id"),
        (np.array([1.0, 2.0]), r"1\.0 is not a token id"),
        ([True, False], "True is not a token id"),
        (np.array([True]), "True is not a token id"),
        ([None], "None is not a token id"),
        ([[[1, 2]]], "is not a token id"),
        (["the", 3], "is not a token id"),
        (3, "3 is not a token id: expected text, integers"),
        (None, "None is not a token id"),
        ({1, 2}, "{1, 2} is not a token id"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_prompts_that_are_none(prompt: Any, message: str, reader: Model) -> None:
    with pytest.raises(TokenError, match=message):
        reader.run(prompt)


def test_an_empty_text_without_bos(reader: Model) -> None:
    assert ids(reader, "") == [[0]]
    with pytest.raises(TokenError, match="the prompt is empty"):
        reader.run("", prepend_bos=False)


def test_a_prompt_longer_than_the_model_was_made_for(tiny: Model) -> None:
    with pytest.warns(UserWarning, match=r"the prompt has 65 tokens and .*llama2 was made for 64"):
        assert tiny.run([1] * 65).resid.shape == (1, 65, 24)


def test_text_of_ids(reader: Model) -> None:
    assert reader.to_string([2, 3]) == "the cat"
    assert reader.to_string(np.array([[2, 3], [6, 7]])) == ["the cat", "a mat"]
    assert reader.to_str_tokens("the cat") == ["<s>", "the", "cat"]
    assert reader.to_str_tokens(["the", "a"], prepend_bos=False) == [["the"], ["a"]]
    # The embedding has rows beyond the vocabulary.
    assert reader.to_str_tokens([3, 47]) == ["cat", "<id 47>"]


def test_single_tokens_and_where_they_stand(reader: Model) -> None:
    assert reader.to_single_token("cat") == 3
    with pytest.raises(TokenError, match=r"'the mat' is not one token"):
        reader.to_single_token("the mat")
    text = "the cat sat on the mat"
    assert reader.get_token_position("the", text) == 1
    assert reader.get_token_position("the", text, mode="last") == 5
    assert reader.get_token_position(3, [2, 3, 4]) == 1
    with pytest.raises(TokenError, match=r"'a' \(id 6\) does not occur in \['<s>', 'the', "):
        reader.get_token_position("a", text)
    with pytest.raises(TokenError, match="expected one prompt, got 2"):
        reader.get_token_position("the", ["the", "a"])
    mode: Any = "middle"
    with pytest.raises(ArgumentError, match="mode='middle': expected 'first' or 'last'"):
        reader.get_token_position("the", text, mode=mode)


def test_without_a_tokenizer_ids_still_work(tiny: Model) -> None:
    run = tiny.run([1, 2, 3])
    assert [p.token for p in run.top(2)] == [f"<id {p.id}>" for p in run.top(2)]
    for ask in (tiny.run, tiny.to_tokens, tiny.to_single_token):
        with pytest.raises(TokenError, match=r"llama2 has no tokenizer\.json.*Pass token ids"):
            ask("text")
    with pytest.raises(TokenError, match=r"has no tokenizer\.json"):
        tiny.to_string([1])


def test_likeliest_next_tokens(reader: Model) -> None:
    run = reader.run([[2, 3, 4], [5, 6, 7]])
    logits = np.asarray(run.logits)
    row = logits[1, 0].astype(float)
    best = run.top(3, pos=0, batch=1)
    assert len(best) == 3
    assert [p.id for p in best] == np.argsort(-row)[:3].tolist()
    assert [p.rank for p in best] == [1, 2, 3]
    odds = np.exp(row) / np.exp(row).sum()
    assert [p.probability for p in best] == pytest.approx([odds[p.id] for p in best], rel=1e-5)
    assert [p.logit for p in best] == pytest.approx([row[p.id] for p in best], rel=1e-6)
    assert run.top(1)[0].id == int(logits[0, -1].argmax())
    assert run.top(1, batch=-1)[0].id == int(logits[1, -1].argmax())
    assert len(run.top(1000)) == 48
    table = str(run.top(2))
    assert table.splitlines()[0].split() == ["rank", "token", "id", "logit", "probability"]
    assert f"{run.top(1)[0].probability:.4f}" in table
    last = reader.run([2, 3, 4], logits="last")
    assert [p.id for p in last.top(3)] == [p.id for p in run.top(3)]
    for place in ({"pos": 3}, {"batch": 2}, {"pos": -4}):
        with pytest.raises(ShapeError, match=r"lies outside the logits \(batch 2, pos 3\)"):
            run.top(**place)
    with pytest.raises(ShapeError, match="this run has no logits"):
        reader.run([1], logits="none").top()


def test_greedy_story_is_the_one_its_author_published(stories: Model) -> None:
    tokens = [1]
    while not (text := stories.to_string(tokens[1:])).endswith("ball."):
        logits = stories.run(tokens, logits="last").logits
        tokens.append(int(np.asarray(logits)[0, -1].argmax()))
        assert len(tokens) < 80, text
    assert text == STORY


def test_text_round_trips_on_a_real_tokenizer(stories: Model) -> None:
    tokens = stories.to_tokens(STORY)
    assert tokens[0, 0] == stories.tokenizer.bos_id == 1
    assert stories.to_string(tokens[0, 1:]) == STORY
    assert "".join(stories.to_str_tokens(STORY)[1:]) == f" {STORY}"
    run = stories.run(STORY[: STORY.index("Lily")].strip())
    assert run.top(1)[0].token.strip() in ("L", "Li", "Lily")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"backend": "nunpy"}, BackendError, "no backend named 'nunpy'; installed: .*numpy"),
        (
            {"dtype": "float16"},
            BackendError,
            "dtype 'float16': a forward pass runs in float32 or",
        ),
        ({"dtype": "bfloat16"}, BackendError, "bfloat16 and float16 checkpoints load exactly"),
        ({"device": "cuda:0"}, BackendError, "NumPy runs on the CPU, not on device 'cuda:0'"),
    ],
)
def test_backends_that_cannot_be_had(
    options: dict[str, Any], error: type[Exception], message: str, repository: Path
) -> None:
    with pytest.raises(error, match=message):
        mi_ref.from_pretrained(repository / "golden" / "data" / "llama2", **options)


def test_a_backend_value_is_taken_as_it_is(repository: Path) -> None:
    chosen = mi_ref.get_backend("numpy", "cpu")
    model = mi_ref.from_pretrained(repository / "golden" / "data" / "llama2", backend=chosen)
    assert model.backend is chosen
    assert mi_ref.get_backend(chosen) is chosen


def test_an_unknown_family_names_the_nearest(repository: Path, tmp_path: Path) -> None:
    shutil.copy(repository / "golden" / "data" / "llama2" / "model.safetensors", tmp_path)
    raw = json.loads((repository / "golden" / "data" / "llama2" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(raw | {"model_type": "lama", "hue": 1}))
    with pytest.raises(ConfigError, match=r"'lama'.*nearest is llama.*plausible wrong numbers"):
        mi_ref.from_pretrained(tmp_path)


def test_prompts_of_two_lengths_are_no_one_array(reader: Model) -> None:
    with pytest.raises(TokenError, match=r"the prompts have 2, 3 tokens: one array needs rows"):
        reader.to_tokens([[1, 2, 3], [4, 5]])


def test_everything_says_what_it_is(reader: Model) -> None:
    run = reader.run("the cat", capture=[at.z[0]])
    assert repr(reader).endswith(
        "llama, 2 layers, 4 heads, d_model 24, d_vocab 48; numpy, float32>"
    )
    assert repr(run) == "<Run of 1×3 tokens: logits (1, 3, 48), 1 captured>"
    assert repr(reader.run([1], logits="none")) == "<Run of 1×1 tokens: logits None, 0 captured>"
    assert repr(reader.W_Q) == "<weights of 2 layers, each (4, 24, 6)>"
    assert repr(reader.hook_points) == "<55 hook points in 2 layers; print() shows them>"
    table = str(reader.hook_points)
    for site in ("resid_post[l]", "blocks.{0..1}.hook_resid_post", "batch pos d_model",
                 "absent: positions enter by rotation, at at.rot_q and at.rot_k",
                 "Residual stream leaving the block."):  # fmt: skip
        assert site in table
    assert "2 × 3 × 24" in str(reader.hook_points.table(batch=2, pos=3))
    assert "<td><code>at" not in run.cache._repr_html_()
    for html in (run.cache, run.top(1), reader.hook_points):
        assert html._repr_html_().startswith("<table>")


def test_nothing_of_a_model_can_be_set(reader: Model) -> None:
    for name in ("cfg", "params", "hooks", "backend"):
        with pytest.raises((dataclasses.FrozenInstanceError, AttributeError, TypeError)):
            setattr(reader, name, None)
    with pytest.raises(dataclasses.FrozenInstanceError):
        reader.cfg.d_model = 3  # type: ignore[misc]
    run = reader.run([1])
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.logits = None  # type: ignore[misc]
    with pytest.raises(ValueError, match="read-only"):
        reader.W_E[0, 0] = 1.0
