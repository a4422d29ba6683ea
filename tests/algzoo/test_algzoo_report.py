"""One call, or one command, reports everything about one of AlgZoo's networks."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from mi_ref import Backend, ConfigError, ShapeError
from mi_ref.algzoo import TASKS, ClassScore, Rnn, load, report
from mi_ref.algzoo.pictures import _plane
from mi_ref.algzoo.weight_files import _FOLDER
from mi_ref.cli.commands import algzoo as command
from tests.algzoo.test_algzoo import random_attention, random_rnn
from tests.fixtures.cli_calls import call


def test_a_report_on_ten_weights(backend: Backend) -> None:
    found = report(load("second-argmax-h2-n2", backend=backend), samples=2000)
    assert (found.task.name, found.n, found.seed) == ("second_argmax", 2, 0)
    assert isinstance(found.score, ClassScore)
    assert (found.score.right, found.score.count) == (2000, 2000)
    assert found.surprise is not None
    assert 0.0005 < found.surprise.network / 2000 < 0.003
    assert [role.name for role in found.roles] == ["x1 - x0", "x0 - x1"]
    assert len(found.regions) == 6
    assert found.patterns is not None
    assert len(found.patterns.counts) == 6
    assert found.standard is not None
    assert backend.to_host(found.standard.W_ih).tolist() == [1.0, -1.0]
    assert [cut.parts for cut in found.cuts] == [(0,), (1,), (0, 1)]
    assert found.attention == ()


def test_a_report_on_a_transformer(backend: Backend) -> None:
    found = report(load("longest-cycle-h4-n4", backend=backend, dtype="float32"))
    assert (found.task.name, found.n, found.seed) == ("longest_cycle", 4, None)
    assert isinstance(found.score, ClassScore)
    assert (found.score.right, found.score.count) == (256, 256)
    assert np.shape(found.attention) == (2, 4, 4)
    np.testing.assert_allclose(np.sum(found.attention, axis=-1), 1.0, rtol=1e-5)
    assert (found.standard, found.patterns, found.roles, found.regions) == (None, None, (), ())
    # The frequencies of the lengths are known: 60 of 256 are permutations of one cycle, or longer.
    assert found.surprise is not None
    assert found.surprise.frequencies < found.surprise.guessing == 512.0
    assert found.surprise.break_even == pytest.approx(2816.0, rel=1e-5)
    assert "more than there are" in str(found)


def test_what_is_printed() -> None:
    found = report(load("second-argmax-h2-n2"), samples=2000)
    text = str(found)
    for words in (
        "2,000 normal inputs, seed 0", "2,000 of 2,000 right (100.00%)", "6, a lower bound",
        "weights, each input weight 1 or -1", "neuron 0 + neuron 1", "x1 - x0",
        "6, all that there are", "-198.09 x0 +173.53 x1",
    ):  # fmt: skip
        assert words in text
    assert text.startswith("second_argmax of 2 numbers, 10 weights\n")
    assert found.conclusion().startswith("2,000 of 2,000 right (100.00%); without neuron 1 ")
    assert text.count("<") == 0
    assert found._repr_html_().count("<table>") == len(found.tables()) == 5


def test_a_report_on_a_median() -> None:
    found = report(random_rnn(3, 1), "median", n=3, samples=200, seed=5)
    assert found.surprise is None
    assert "of the variance explained" in str(found)
    assert "root mean square error" in str(found)
    assert (found.n, found.seed) == (3, 5)
    assert found.record()["surprise"] is None


def test_a_neuron_that_hears_no_input_is_reported_as_it_is(tmp_path: Path) -> None:
    network = Rnn(np.array([1.0, 0.0]), np.ones((2, 2)), np.eye(2))
    found = report(network, "second_argmax", samples=50)
    assert found.standard is None
    assert "each input weight" not in str(found)
    assert found.record()["standardised"] is None
    found.plot(tmp_path / "plane.png")


def test_only_the_pairs_that_interact_most_are_printed() -> None:
    found = report(random_rnn(5, 3), "argmedian", samples=300)
    assert len(found.cuts) == 15
    assert "none: guessing is as short" in str(found)
    table = str(found.tables()[2])
    printed = [line for line in table.splitlines() if " + " in line]
    shown = [abs(float(line.split()[-1])) for line in printed]
    pairs = sorted((abs(cut.interaction or 0.0) for cut in found.cuts), reverse=True)[:5]
    assert shown == pytest.approx(pairs, abs=5e-5)


def test_a_record_holds_everything() -> None:
    network = load("second-argmax-h2-n2")
    found = report(network, samples=500, seed=3)
    record: dict[str, Any] = json.loads(json.dumps(found.record()))
    assert record["format"] == "mi_ref.algzoo/1"
    assert record["provenance"]["seed"] == 3
    assert record["provenance"]["dtype"] == "float64"
    assert record["provenance"]["model"] == "second-argmax-h2-n2"
    assert network.source is not None
    assert record["provenance"]["weights_sha256"] == network.source.sha256()
    column, w_hh, w_oh = (np.array(weights) for weights in record["weights"].values())
    again = report(Rnn(column[:, 0], w_hh, w_oh), record["task"], n=record["n"],
                   samples=record["score"]["count"], seed=3).record()  # fmt: skip
    for key in record.keys() - {"provenance"}:
        assert json.loads(json.dumps(again[key])) == record[key]
    assert again["provenance"]["weights_sha256"] is None
    assert len(record["regions"]) == 6
    assert found.patterns is not None
    assert list(record["patterns"]["counts"].values()) == [n for _, n in found.patterns.counts]
    assert found.patterns.counts[0][0] == ((False, True), (True, False))
    assert next(iter(record["patterns"]["counts"])) == "01 10"
    assert record["score"]["quality"] == record["score"]["right"] / 500


def test_what_cannot_be_reported() -> None:
    rnn, transformer = load("second-argmax-h2-n2"), load("longest-cycle-h4-n4")
    with pytest.raises(ConfigError, match=r"this network does not say.*task=, one of second_arg"):
        report(replace(rnn, source=None))
    with pytest.raises(ConfigError, match=r"there is no task 'argmax'; pass one of second_argmax"):
        report(rnn, "argmax")
    with pytest.raises(ConfigError, match=r"longest_cycle is not a task of <Rnn .* reads numbers"):
        report(rnn, "longest_cycle")
    with pytest.raises(ConfigError, match=r"median is not a task of <Att.* reads whole numbers"):
        report(transformer, "median", n=3)
    with pytest.raises(ConfigError, match="median has one answer for any count of numbers: pass n"):
        report(random_rnn(2, 1), "median")
    with pytest.raises(ShapeError, match="samples=1: pass two or more"):
        report(rnn, samples=1)
    with pytest.raises(ShapeError, match="n=0"):
        report(rnn, n=0)
    with pytest.raises(ShapeError, match="3 answer"):
        report(rnn, n=3)


@pytest.mark.parametrize("kind", ["plane", "weights", "attention"])
def test_pictures(kind: str, tmp_path: Path) -> None:
    network, task = {
        "plane": (load("second-argmax-h2-n2"), None),
        "weights": (random_rnn(4, 3), "argmedian"),
        "attention": (random_attention(3, 4), "longest_cycle"),
    }[kind]
    path = tmp_path / "picture.svg"
    report(network, task, samples=100).plot(path)
    assert path.read_text("utf-8").count("<path") > 10


def test_the_plane_shows_every_region() -> None:
    found = report(load("second-argmax-h2-n2"), samples=100)
    axes = _plane(found).axes[0]
    assert [text.get_text() for text in axes.texts] == list("012345")
    # A ray for each region, and the line where the numbers are equal.
    assert len(axes.lines) == 7


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture, record = tmp_path / "plane.png", tmp_path / "found.json"
    options = ("--samples", "500", "--seed", "2", "--plot", str(picture), "--json", str(record))
    status, out, err = call(capsys, "algzoo", *options)
    assert (status, err) == (0, "")
    found = report(load("second-argmax-h2-n2"), samples=500, seed=2)
    lines = out.splitlines()
    assert lines[0] == "second-argmax-h2-n2  Rnn, numpy float64"
    assert lines[-1] == found.conclusion()
    assert str(found) in "\n".join(line.rstrip() for line in lines)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert json.loads(record.read_text("utf-8")) == json.loads(json.dumps(found.record()))


def test_the_command_reads_files(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_file({key: w.astype(np.float32) for key, w in random_rnn(3, 1).weights.items()}, path)
    status, out, _ = call(capsys, "algzoo", path, "--task", "median", "--n", "3",
                          "--dtype", "float32", "--json", "-")  # fmt: skip
    record = json.loads(out)
    assert (status, record["n"], record["provenance"]["dtype"]) == (0, 3, "float32")
    assert math.isfinite(record["score"]["error"])
    status, _, err = call(capsys, "algzoo", path)
    assert status == 1
    assert f"mi-ref: error: {path} does not say what it was trained for: pass task=" in err
    status, _, err = call(capsys, "algzoo", "nowhere.safetensors")
    assert (status, "there is no file 'nowhere.safetensors'" in err) == (1, True)


def test_the_command_offers_every_task(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "algzoo", "--help")
    assert f"{{{','.join(TASKS)}}}" in out
    assert (_FOLDER / f"{command._DEFAULT}.safetensors").is_file()
