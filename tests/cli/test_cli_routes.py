"""Commands over pairs of prompts and through the stream: what they print, write and refuse."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

import mi_ref
from mi_ref import Model
from mi_ref.analysis.facts.block_pairs import block_patching_pairs
from mi_ref.analysis.facts.pairs import FactPair
from mi_ref.analysis.facts.routing import factual_routing
from mi_ref.analysis.facts.routing_pairs import factual_routing_pairs
from mi_ref.analysis.recurrent.depth_loop import Feedback
from mi_ref.analysis.recurrent.feedback import embedding_direction, recurrent_feedback
from mi_ref.analysis.residual.accumulated import accumulated_residual
from mi_ref.analysis.residual.decomposition import residual_decomposition
from mi_ref.analysis.steering.convergence import steering_convergence
from mi_ref.output.result import Result
from mi_ref.output.tables import Table
from tests.cli.test_cli_analyses import decimals, is_in, numbers_in
from tests.fixtures.cli_calls import call

FRANCE, ITALY, SPAIN = (f"The capital of {name} is" for name in ("France", "Italy", "Spain"))
GAMBIA = "The capital of the Gambia is"
PAIRS = [FactPair(FRANCE, ITALY, "France", " Paris", " Rome"), FactPair(GAMBIA, SPAIN),
         FactPair(SPAIN, ITALY)]  # fmt: skip
LOAD = cache(mi_ref.from_pretrained)
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once."""
    monkeypatch.setattr(mi_ref, "from_pretrained", LOAD)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a file of pairs of which the second does not fit."""
    entries = [{"prompt": FRANCE, "counterfactual": ITALY, "subject": "France",
                "answer": " Paris", "other": " Rome"},
               {"prompt": GAMBIA, "counterfactual": SPAIN},
               {"prompt": SPAIN, "counterfactual": ITALY}]  # fmt: skip
    (tmp_path / "pairs.json").write_text(json.dumps(entries), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def looped(atlas: Model) -> Result:
    fed = [Feedback(place, embedding_direction(atlas, [" Rome"]), 400.0) for place in (4, 5)]
    return recurrent_feedback(atlas, FRANCE, loop=(2, 4), depth=3, feedback=fed)


Expected = Callable[[Model], Result | Table]
MANY = ["--pairs", "pairs.json", "--skip"]
ROUTE = ["route", "--prompt", FRANCE, "--counterfactual", ITALY]
CASES: list[tuple[list[str], Expected, str]] = [
    ([*ROUTE, "--layer", "0", "--top", "3"],
     lambda m: factual_routing(m, FRANCE, ITALY, layers=[0]).table(3),
     "Head 5.4 changes most: from 0.0000 to 1.0000."),
    (["route", *MANY, "--layer", "0", "--top", "4"],
     lambda m: factual_routing_pairs(m, PAIRS, layers=[0], top=4, skip=True).table(4),
     "is among the 4 that change most in 2 of 2 pairs: by 0."),
    (["patch", "--by", "block", "--block-size", "3", *MANY],
     lambda m: block_patching_pairs(m, PAIRS, block_size=3, skip=True),
     "Most turn with layers 0 to 2 patched, position 'subject': 2 of 2 pairs."),
    (["converge", "--prompt", FRANCE, "--contrast", ITALY, "--strength", "2", "--layer", "1"],
     lambda m: steering_convergence(m, FRANCE, ITALY, strengths=[2.0], layer=1),
     "3 of 6 layers absorb the push, to 0.95."),
    (["decompose", "--prompt", FRANCE], lambda m: residual_decomposition(m, FRANCE),
     "mlp 5 makes the largest part: +0.489 of the final stream."),
    (["decompose", "--prompt", FRANCE, "--heads", "--top", "4"],
     lambda m: residual_decomposition(m, FRANCE, heads=True).table(4),
     "mlp 5 makes the largest part: +0.489 of the final stream."),
    (["decompose", "--prompt", FRANCE, "--accumulated", "--target", " Paris", "--other", " Rome"],
     lambda m: accumulated_residual(m, FRANCE, " Paris", " Rome"),
     "17.224 after mlp 5; mlp 5 moves it most."),
    (["decompose", "--prompt", FRANCE, "--accumulated", "--position", "all"],
     lambda m: accumulated_residual(m, FRANCE, positions=None), "The norm is 1.493 after embed"),
    (["feedback", "--prompt", FRANCE, "--loop", "2", "4", "--depth", "3", "--word", " Rome",
      "--strength", "400", "--position", "4", "--position", "-1"], looped,
     "After 3 passes "),
]  # fmt: skip
IDS = [f"{case[0][0]}-{number}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("arguments", "expected", "conclusion"), CASES, ids=IDS)
def test_a_command_prints_and_draws_what_the_analysis_found(
    capsys: Capsys, folder: Path, arguments: list[str], expected: Expected, conclusion: str
) -> None:
    status, out, err = call(capsys, *arguments, "--json", "found.json", "--plot", "found.png")
    assert (status, err) == (0, "")
    assert (folder / "found.png").read_bytes().startswith(b"\x89PNG")
    found = expected(LOAD("atlas"))
    lines = out.splitlines()
    assert lines[0].startswith("atlas  llama, 6 layers")
    assert str(found) in out
    assert conclusion in lines[-1]
    record = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    written = [*numbers_in(record), *head_names()]
    assert [text for text in decimals("\n".join(lines[1:])) if not is_in(text, written)] == []
    if isinstance(found, Result):
        same = json.loads(json.dumps(found.record()))
        assert {key: record[key] for key in same} == same


def head_names() -> list[float]:
    return [float(f"{layer}.{head}") for layer in range(6) for head in range(8)]


def test_the_record_of_one_pair_has_its_changes(capsys: Capsys, folder: Path) -> None:
    _, out, _ = call(capsys, *ROUTE, "--subject", "of France", "--json", "-")
    record = json.loads(out)
    assert record["subject"] == [3, 4]
    sums = zip(record["before"], record["after"], record["changes"], strict=True)
    for before, after, change in sums:
        for a, b, moved in zip(before, after, change, strict=True):
            assert moved == b - a


def test_the_record_of_pairs_says_what_was_left_out(capsys: Capsys, folder: Path) -> None:
    for command in (["route"], ["patch", "--by", "block"]):
        status, out, _ = call(capsys, *command, *MANY, "--json", "-")
        assert status == 0
        record = json.loads(out)
        assert [pair["number"] for pair in record["pairs"]] == [0, 2]
        assert [each["number"] for each in record["left_out"]] == [1]
        assert "has 7 tokens" in record["left_out"][0]["reason"]


def test_words_that_were_fed_back_are_recorded(capsys: Capsys, folder: Path) -> None:
    plain = ["feedback", "--prompt", FRANCE, "--loop", "2", "4"]
    records = [
        json.loads(call(capsys, *plain, *more, "--json", "-")[1])
        for more in ([], ["--word", " Rome", "--strength", "9", "--mode", "restart"])
    ]
    assert [record["words"] for record in records] == [[], [" Rome"]]
    assert records[0]["feedback"] == []
    assert records[1]["feedback"] == [{"position": 5, "length": pytest.approx(9.0, rel=1e-5)}]
    assert records[1]["mode"] == "restart"


def test_the_largest_parts_come_first(capsys: Capsys, folder: Path) -> None:
    _, out, _ = call(capsys, "decompose", "--prompt", FRANCE, "--top", "5")
    lines = [line for line in out.splitlines() if line.startswith((" mlp", " attn"))]
    shares = [abs(float(line.split()[3])) for line in lines]
    assert len(shares) == 5
    assert all(one >= other for one, other in pairwise(shares))


def test_an_mlp_is_split_into_neurons(capsys: Capsys, folder: Path) -> None:
    _, out, _ = call(capsys, "decompose", "--prompt", FRANCE, "--neurons", "5", "--json", "-")
    components = json.loads(out)["components"]
    assert "mlp 5" not in components
    n_neurons = LOAD("atlas").cfg.d_mlp
    assert [c for c in components if c.startswith("neuron")] == [
        f"neuron 5.{n}" for n in range(n_neurons)
    ]


def test_pairs_are_drawn_both_ways(capsys: Capsys, folder: Path) -> None:
    for name in ("frequency", "change"):
        call(capsys, "route", *MANY, "--draw", name, "--plot", f"{name}.png", "--json", "-")
    first, second = ((folder / f"{name}.png").read_bytes() for name in ("frequency", "change"))
    assert first != second


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["route", "--pairs", "pairs.json"], "1 of 3 pairs do not fit, counted from 0:\n  1: "),
        (["route", "--pairs", "missing.json"], "No such file or directory: missing.json"),
        ([*ROUTE, "--subject", "Spain"], "'Spain' occurs 0 times"),
        ([*ROUTE, "--layer", "6"], "layers [6] of 6"),
        ([*ROUTE, "--model", "atlas-rwkv7"], "at.pattern does not exist in this model"),
        (["patch", "--by", "block", "--pairs", "pairs.json"], "1 of 3 pairs do not fit"),
        (["converge", "--prompt", FRANCE, "--contrast", GAMBIA], "prompt has 6 tokens"),
        (["converge", "--prompt", FRANCE, "--contrast", ITALY, "--threshold", "2"], "threshold=2"),
        (["decompose", "--prompt", FRANCE, "--neurons", "9"], "neurons=[9]"),
        (["feedback", "--prompt", FRANCE, "--loop", "4", "2"], "not a range of layers"),
    ],
)
def test_errors_are_one_message_and_status_1(
    capsys: Capsys, folder: Path, arguments: list[str], said: str
) -> None:
    status, out, err = call(capsys, *arguments, "--json", "found.json")
    assert (status, out) == (1, "")
    assert err.startswith("mi-ref: error: ")
    assert said in err
    assert not (folder / "found.json").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["route", "--prompt", FRANCE], "give --prompt and --counterfactual, or --pairs"),
        ([*ROUTE, "--pairs", "pairs.json"], "--prompt, --counterfactual: not beside --pairs"),
        ([*ROUTE, "--skip"], "--skip and --draw are of --pairs"),
        (["patch", "--clean", FRANCE], "give --clean and --corrupted, or --pairs"),
        (["patch", "--pairs", "pairs.json"], "--pairs needs --by block"),
        (["patch", "--clean", FRANCE, "--corrupted", ITALY, "--skip"], "--skip requires --pairs"),
        (["patch", "--by", "block", *MANY, "--direction", "noising", "--position", "1"],
         "--direction, --position: not beside --pairs"),
        (["decompose", "--prompt", FRANCE, "--target", " Rome"], "--target: only of --accumulated"),
        (["decompose", "--prompt", FRANCE, "--accumulated", "--heads"], "--heads: only of the par"),
        (["decompose", "--prompt", FRANCE, "--accumulated", "--other", " Rome"],
         "--other is taken off a --target"),
        (["feedback", "--prompt", FRANCE, "--loop", "2", "4", "--word", " a"], "give both"),
        (["feedback", "--prompt", FRANCE, "--loop", "2", "4", "--position", "1"],
         "--position is of --word"),
    ],
)  # fmt: skip
def test_wrong_usage_is_status_2(capsys: Capsys, arguments: list[str], said: str) -> None:
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"usage: mi-ref {arguments[0]} ")
    assert said in err


@pytest.mark.parametrize("name", ["route", "converge", "decompose", "feedback"])
def test_help_has_an_example(capsys: Capsys, name: str) -> None:
    status, out, _ = call(capsys, name, "--help")
    assert status == 0
    assert f"example:\n  mi-ref {name}" in out
