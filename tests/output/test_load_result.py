"""Every result comes back from its file: text, record and picture."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import mi_ref
from mi_ref import ArgumentError, Model, analysis, get_backend
from mi_ref.output.codec import decode, encode
from mi_ref.output.result import Result
from mi_ref.output.saved import dataclasses_of, modules
from tests.fixtures.analysis_calls import CALLS

Load = Callable[..., Model]
PROMPT = "The capital of France is"


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas")


def check(result: Result, folder: Path) -> None:
    path = folder / "result.json"
    result.save(path)
    found = mi_ref.load_result(path)
    assert type(found) is type(result)
    assert str(found) == str(result)
    assert json.dumps(found.record()) == json.dumps(result.record())
    again = folder / "again.json"
    found.save(again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("case", ["llama3", "rwkv7"])
@pytest.mark.parametrize("name", CALLS)
def test_a_result_comes_back(name: str, case: str, load: Load, tmp_path: Path) -> None:
    model = load(case, get_backend("numpy"), "float64")
    try:
        result = CALLS[name](model)
    except mi_ref.MiRefError:
        pytest.skip("this kind of model has no such analysis")
    if not isinstance(result, Result):
        pytest.skip("not a result")
    check(result, tmp_path)


def test_results_of_text_come_back_and_draw_the_same_picture(atlas: Model, tmp_path: Path) -> None:
    lens = analysis.logit_lens(atlas, PROMPT, target=" Paris")
    places = analysis.token_positions(atlas, PROMPT)
    for result in (lens, places):
        check(result, tmp_path)
    lens.save(tmp_path / "lens.json")
    mi_ref.load_result(tmp_path / "lens.json").plot(tmp_path / "again.svg")
    lens.plot(tmp_path / "lens.svg")
    ours, theirs = (len((tmp_path / name).read_text()) for name in ("again.svg", "lens.svg"))
    assert ours == theirs


def test_a_loaded_result_knows_its_model_and_its_tokens(atlas: Model, tmp_path: Path) -> None:
    analysis.logit_lens(atlas, PROMPT, target=" Paris").save(tmp_path / "lens.json")
    origin = mi_ref.load_result(tmp_path / "lens.json").origin
    assert origin.same_model(atlas.origin)
    paris = atlas.to_single_token(" Paris")
    assert origin.token_id(" Paris") == paris
    assert origin.token_string(paris) == " Paris"
    with pytest.raises(mi_ref.TokenError, match="is not a token of this saved result"):
        origin.token_id(" of the people")


@pytest.mark.parametrize(
    "value",
    [None, True, -3, 0.1, float("inf"), float("-inf"), "é", (1, (2.5, None)), [1, [2]], {},
     {(1, None): 2.0, 3: ()}, range(1, 9, 2), slice(None, -1), mi_ref.at.z[3], mi_ref.at.embed,
     mi_ref.at.pattern],
)  # fmt: skip
def test_values_come_back_as_what_they_were(value: Any) -> None:
    found = decode(json.loads(json.dumps(encode(value), allow_nan=False)), {})
    assert found == value
    assert type(found) is type(value)


def test_what_no_file_can_keep_is_refused() -> None:
    with pytest.raises(ArgumentError, match="a function cannot be kept in a file"):
        encode((1, check))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read as a result"),
        ("[" * 100_000, "cannot be read as a result"),
        ("[1]", "expected a file that a result's save"),
        (
            '{"format": "mi_ref.edits/1", "edits": []}',
            r'without a "value" cannot be .*load_edits',
        ),
        ('{"format": "mi_ref.algzoo/1"}', r'without a "value".* AlgZoo.s reports have none'),
        ('{"format": "mi_ref.x/2/1", "value": 1}', "expected a file that a result's save"),
        ('{"format": "mi_ref.x/11", "value": 1}', "reads version 1"),
        ('{"format": "mi_ref.sweep/2", "value": 1}', "reads version 1. Read it with the version"),
        ('{"format": "mi_ref.sweep/1", "value": 1}', "record and its value are not of one"),
        ('{"format": "mi_ref.sweep/1", "value": {"is": "Path", "fields": {}}}', "is damaged"),
        ('{"format": "mi_ref.sweep/1", "value": {"is": "Sweep", "fields": {}}}', "is damaged"),
    ],
)
def test_files_that_hold_no_result(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(content)
    with pytest.raises(ArgumentError, match=message):
        mi_ref.load_result(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"absent\.json' cannot be read as a result"):
        mi_ref.load_result(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file | {"format": "mi_ref.sweep/1"}, "are not of one result"),
        (lambda file: file | {"prompt": "another"}, "are not of one result"),
        (lambda file: with_field(file, "prompt", 7), "are not of one result"),
        (lambda file: with_field(file, "origin", None), "is damaged"),
        (lambda file: with_field(file, "cells", {"tuple": 3}), "is damaged"),
    ],
)
def test_a_file_whose_parts_disagree_is_refused(
    change: Callable[[Any], Any], message: str, atlas: Model, tmp_path: Path
) -> None:
    path = tmp_path / "lens.json"
    analysis.logit_lens(atlas, PROMPT, target=" Paris").save(path)
    path.write_text(json.dumps(change(json.loads(path.read_text("utf-8")))))
    with pytest.raises(ArgumentError, match=message):
        mi_ref.load_result(path)


def with_field(file: Any, name: str, value: Any) -> Any:
    """Return a saved file with one field of its value changed."""
    fields = file["value"]["fields"] | {name: value}
    return file | {"value": file["value"] | {"fields": fields}}


def test_no_two_dataclasses_of_results_have_one_name() -> None:
    names = [kind.__name__ for module in modules() for kind in dataclasses_of(module)]
    assert [name for name in set(names) if names.count(name) > 1] == []
