"""Commands that run a model: what they print, write and refuse."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import mi_ref
from mi_ref import Model, analysis, at
from mi_ref.analysis.ablation.dataset import dataset_ablation
from mi_ref.analysis.measure.metrics import logit_difference
from mi_ref.output.result import Result
from mi_ref.output.tables import Table
from tests.fixtures.cli_calls import call

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
THE = "The capital"
PAIR = ["--clean", ITALY, "--corrupted", FRANCE]
VECTOR = ["--toward", ITALY, "--away", FRANCE, "--target", " Rome"]
LOAD = cache(mi_ref.from_pretrained)
Capsys = pytest.CaptureFixture[str]
Expected = Callable[[Model], Result | Table]
Derived = Callable[[dict[str, Any]], list[float]]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once."""
    monkeypatch.setattr(mi_ref, "from_pretrained", LOAD)


@cache
def model(name: str) -> Model:
    return mi_ref.from_pretrained(name)


def steered(atlas: Model) -> Result:
    vector = analysis.steering_vector(atlas, [ITALY], [FRANCE], at.resid_post[1], position=4)
    return analysis.dose_response(atlas, FRANCE, vector, [1.0, 2.0], target=" Rome", positions=[4])


def rome(atlas: Model) -> Result:
    metric = logit_difference(atlas, " Rome", " Paris")
    return analysis.activation_patching(atlas, ITALY, FRANCE, metric=metric, layers=3)


def nothing(_: dict[str, Any]) -> list[float]:
    return []


def head_names(_: dict[str, Any]) -> list[float]:
    return [float(f"{layer}.{head}") for layer in range(6) for head in range(8)]


def changes(record: dict[str, Any]) -> list[float]:
    return [c["after"] - c["before"] for c in record["changes"]]


def ablated(record: dict[str, Any]) -> list[float]:
    intact = record["intact_logit_difference"]
    return [e["logit_difference"] - intact for e in record["effects"]]


def shares(record: dict[str, Any]) -> list[float]:
    total = record["totals"][-1]
    return [100 * row[-1] / total for row in record["contributions"]] + [100.0]


def whole_heads(record: dict[str, Any]) -> list[float]:
    """Return all heads' norm and change together, as the table has them."""
    pairs = zip(record["norms"], record["changes"], strict=True)
    cells = [(norms, moved) for layer in pairs for norms, moved in zip(*layer, strict=True)]
    total = [(sum(n * n for n in norms), sum(c * c for c in moved)) for norms, moved in cells]
    return [x for norm, moved in total for x in (norm**0.5, (moved / norm) ** 0.5)]


def medians(record: dict[str, Any]) -> list[float]:
    return [statistics.median(map(float, rows)) for row in record["half_lives"] for rows in row]


CASES: list[tuple[list[str], Expected, str, Derived]] = [
    (["patterns", "--prompt", FRANCE], lambda m: analysis.attention_patterns(m, FRANCE),
     "Apart from the first token, 4 ' France' gets most: 1.000 of the weight of head ",
     head_names),
    (["patterns", "--prompt", FRANCE, "--layer", "3", "--head", "-8"],
     lambda m: analysis.attention_patterns(m, FRANCE, layers=3).table(3),
     "Head 3.0 looks most at 4 ' France', with 0.999 of its weight", head_names),
    (["heads", "--period", "9", "--n-prompts", "1"],
     lambda m: analysis.head_scores(m, period=9, n_prompts=1), "induction 3.", head_names),
    (["knockout", "--prompt", FRANCE, "--layer", "3", "--key", "4"],
     lambda m: analysis.attention_knockout(m, FRANCE, layers=3, keys=4),
     "' Paris' goes from 0.997 to 0.609: KL 0.4842 nats.", changes),
    (["knockout", "--prompt", FRANCE, "--grid", "--query", "all", "--layer", "3"],
     lambda m: analysis.knockout_grid(m, FRANCE, layers=3, queries=None),
     "Cutting 4 ' France' in layer 3 changes most, KL 0.484 nats", nothing),
    (["steer", "--prompt", FRANCE, "--key", "4", "--weight", "0", "--weight", "0.5"],
     lambda m: analysis.attention_dose_response(m, FRANCE, layer=3, key=4, weights=[0.0, 0.5]),
     "Weight 0 changes most, KL 0.484 nats: ' Paris' goes from 0.997 to 0.609.", nothing),
    (["steer", "--prompt", FRANCE, *VECTOR, "--layer", "1", "--read", "4", "--position", "-2",
      "--scale", "1", "--scale", "2"], steered,
     "1 times the vector moves ' Rome' most: from 3e-08 to 0.982", nothing),
    (["patch", *PAIR, "--target", " Rome", "--other", " Paris", "--layer", "3"], rome,
     "logit ' Rome' - ' Paris' is -17.224 without a patch", nothing),
    (["patch", *PAIR, "--by", "head", "--layer", "3", "--index", "6", "--direction", "noising"],
     lambda m: analysis.head_patching(m, ITALY, FRANCE, layers=3, heads=6, direction="noising"),
     "logit ' Rome' - ' Paris' is 20.930 without a patch", nothing),
    (["patch", *PAIR, "--by", "block", "--block-size", "3", "--position", "4"],
     lambda m: analysis.block_patching(m, FRANCE, ITALY, block_size=3, positions=4),
     "1 of 2 patches turn the choice.", nothing),
    (["trace", "--prompt", FRANCE, "--subject", " France", "--draws", "2", "--layer", "2"],
     lambda m: analysis.causal_tracing(m, FRANCE, subject=[4], draws=2, layers=2),
     "the mean of 2 draws.", lambda record: [statistics.fmean(record["corrupted"])]),
    (["ablate", "--prompt", FRANCE, "--what", "mlp", "--target", " Paris", "--other", " Rome"],
     lambda m: analysis.ablation(m, FRANCE, what="mlp", target=" Paris", other=" Rome"),
     "without mlp 0: KL 10.8931 nats, logit ' Paris' − ' Rome' from 17.224 to ", ablated),
    (["attribute", "--prompt", FRANCE, "--target", " Paris", "--other", " Rome"],
     lambda m: analysis.logit_attribution(m, FRANCE, " Paris", " Rome"),
     "mlp 5 contributes most: +7.663 of +17.224 in all.", shares),
    (["rwkv-state", "--prompt", FRANCE], lambda m: analysis.state_norms(m, FRANCE),
     "1 'The' changes a state most: by 0.84 of its norm, in layer 1.", whole_heads),
    (["rwkv-state", "--prompt", FRANCE, "--half-lives"], lambda m: analysis.half_lives(m, FRANCE),
     "Head 3.0 keeps longest: half of a row is left after 184 tokens",
     lambda record: [*medians(record), 3.0]),
    (["rwkv-state", "--prompt", FRANCE, "--reads"], lambda m: analysis.state_reads(m, FRANCE),
     "Head 3.0 reads most: +150.854 of 4 ' France'.", head_names),
    (["rwkv-state", "--prompt", FRANCE, "--knockout", "--layer", "3"],
     lambda m: analysis.state_knockout_sweep(m, FRANCE, layers=3),
     "In layer 3, 4 ' France' matters most: KL 9.31 nats, ' Paris' from 0.995 to 9e-05.",
     nothing),
    (["rwkv-state", "--prompt", FRANCE, "--position", "4", "--layer", "3", "--scale", "0"],
     lambda m: analysis.state_steering_sweep(m, FRANCE, [0.0], positions=4, layers=3),
     "In layer 3, × 0 matters most: KL 9.31 nats, ' Paris' from 0.995 to 9e-05.", nothing),
    (["rwkv-state", "--prompt", FRANCE, "--patch-from", ITALY, "--target", " Rome", "--layer", "3"],
     lambda m: analysis.state_patching(m, FRANCE[:-3], ITALY[:-3], " is", target=" Rome", layers=3),
     "In layer 3, head 2 matters most: KL 11.97 nats, ' Rome' from 8e-07 to 0.972.", nothing),
    (["positions", "--prompt", FRANCE, "--span", " France", "--span", THE],
     lambda m: analysis.token_positions(m, FRANCE, {repr(t): t for t in (" France", THE)}),
     "' France' is position 4. 'The capital' is positions 1, 2.", nothing),
]  # fmt: skip
IDS = [f"{case[0][0]}-{number}" for number, case in enumerate(CASES)]


@pytest.mark.parametrize(("arguments", "expected", "conclusion", "derived"), CASES, ids=IDS)
def test_a_command_prints_what_the_analysis_found(
    capsys: Capsys, tmp_path: Path, arguments: list[str], expected: Expected,
    conclusion: str, derived: Derived,
) -> None:  # fmt: skip
    recurrent = arguments[0] == "rwkv-state"
    path = tmp_path / "found.json"
    status, out, err = call(capsys, *arguments, "--json", path)
    assert (status, err) == (0, "")
    found = expected(model("atlas-rwkv7" if recurrent else "atlas"))
    lines = out.splitlines()
    assert lines[0].startswith("atlas-rwkv7  rwkv7, 4 " if recurrent else "atlas  llama, 6 ")
    if arguments[0] != "heads":
        assert re.match(r"(tokens|clean {4}|patched)  0 '<\|bos\|>'  1 'The'", lines[1])
    assert str(found) in out
    assert conclusion in lines[-1]
    record = json.loads(path.read_text(encoding="utf-8"))
    written = [*numbers_in(record), *derived(record)]
    missing = [text for text in decimals("\n".join(lines[3:])) if not is_in(text, written)]
    assert missing == []
    if isinstance(found, Result):
        # The record of a steering sweep includes its vector.
        assert {key: record[key] for key in found.record()} == json.loads(
            json.dumps(found.record())
        )


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers_in(each)
    elif isinstance(value, int | float):
        yield float(value)


def decimals(text: str) -> list[str]:
    """Return what is printed with a point or an exponent; other numbers count or name."""
    return re.findall(r"(?<![\w.<])[+-]?\d+(?:\.\d+(?:e[+-]\d+)?|e[+-]\d+)", text)


def is_in(text: str, numbers: list[float]) -> bool:
    """Whether one of the numbers is what was printed, to half of its last digit."""
    mantissa, _, exponent = text.partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return any(abs(float(text) - number) <= unit * 0.5001 for number in numbers)


def test_a_number_that_is_not_in_the_record_is_seen() -> None:
    assert decimals("0.123  3e-08 layer 3 head 1.5 '-0.5x' 2.5e-07") == [
        "0.123", "3e-08", "1.5", "-0.5", "2.5e-07",
    ]  # fmt: skip
    assert is_in("0.123", [0.12349])
    assert not is_in("0.123", [0.1236, -0.123])


PLOTS = [case[0] for case in CASES if case[0][0] != "positions" and
         (case[0][0] != "knockout" or "--grid" in case[0])]  # fmt: skip


@pytest.mark.parametrize("name", sorted({arguments[0] for arguments in PLOTS}))
def test_plots_and_records_on_standard_output(capsys: Capsys, tmp_path: Path, name: str) -> None:
    arguments = next(each for each in PLOTS if each[0] == name)
    path = tmp_path / "found.png"
    status, out, err = call(capsys, *arguments, "--plot", path, "--json", "-")
    assert (status, err) == (0, "")
    assert json.loads(out)["format"].startswith("mi_ref.")
    assert path.read_bytes().startswith(b"\x89PNG")
    assert call(capsys, *arguments, "--plot", tmp_path / "found.txt")[:2] == (1, "")
    assert sorted(tmp_path.iterdir()) == [path]


def test_a_grid_of_patches_goes_on_where_it_was(capsys: Capsys, tmp_path: Path) -> None:
    kept = tmp_path / "cells.jsonl"
    command: list[str | Path] = ["patch", *PAIR, "--layer", "3", "--rows", "4", "--resume", kept]
    first = call(capsys, *command)
    before = kept.read_bytes()
    assert before
    assert call(capsys, *command) == first
    assert kept.read_bytes() == before


def test_ablating_on_several_prompts(capsys: Capsys, tmp_path: Path) -> None:
    path, kept, picture = (tmp_path / name for name in ("found.json", "cells.jsonl", "found.png"))
    command: list[str | Path] = [
        "ablate", "--what", "mlp", "--method", "resample", "--draws", "2", "--seed", "1",
        "--prompt", FRANCE, "--target", " Paris", "--prompt", ITALY, "--target", " Rome",
        "--position", "-1", "--json", path, "--plot", picture, "--rows", "4", "--resume", kept,
    ]  # fmt: skip
    status, out, err = call(capsys, *command)
    assert (status, err) == (0, "")
    found = dataset_ablation(
        model("atlas"), [FRANCE, ITALY], what="mlp", method="resample", draws=2, seed=1,
        targets=[" Paris", " Rome"], positions=-1, rows=4,
    )  # fmt: skip
    assert str(found) in out
    assert json.loads(path.read_text("utf-8")) == json.loads(json.dumps(found.record()))
    best = found.top(1)[0]
    assert out.splitlines()[-1] == (
        f"Over 2 prompts predictions move most without mlp {best.layer}: KL {best.kl.mean:.4f} ±"
        f" {best.kl.error:.4f} nats."
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    before = kept.read_bytes()
    assert before.count(b"\n") == 1 + 2 * 6 * 2
    assert call(capsys, *command) == (status, out, err)
    assert kept.read_bytes() == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--target", " Paris"], "--target is one for each --prompt: 2, not 1"),
        (["--other", " Rome"], "--other is one for each --prompt: 2, not 1"),
        (["--reference", "of"], "--reference is of one --prompt: several are each other's"),
    ],
)
def test_ablating_on_several_prompts_refuses(capsys: Capsys, more: list[str], said: str) -> None:
    status, out, err = call(capsys, "ablate", "--prompt", FRANCE, "--prompt", ITALY, *more)
    assert (status, out) == (2, "")
    assert said in err


def test_neurons_and_vectors_of_recurrent_models(capsys: Capsys) -> None:
    status, out, _ = call(capsys, "patch", *PAIR, "--by", "neuron", "--layer", "-1", "--index", "7")
    assert status == 0
    assert "at.post[5]" in out
    assert re.search(r"position +7\n.*\n +all +", out)
    status, out, _ = call(capsys, "steer", "--prompt", FRANCE, *VECTOR, "--model", "atlas-rwkv7",
                          "--dtype", "float64")  # fmt: skip
    assert status == 0
    assert "numpy float64 on cpu" in out
    assert "at.resid_post[2], position -1" in out


def test_heads_on_a_prompt(capsys: Capsys) -> None:
    status, out, _ = call(
        capsys, "heads", "--prompt", "of the of the", "--top", "1", "--over", "all"
    )
    assert status == 0
    found = analysis.head_scores(model("atlas"), "of the of the", over="all")
    assert str(found.table(1)) in out
    assert "\ntokens  0 '<|bos|>'  1 'of'" in out


@pytest.mark.parametrize("name", sorted({case[0][0] for case in CASES}))
def test_help_has_an_example(capsys: Capsys, name: str) -> None:
    status, out, _ = call(capsys, name, "--help")
    assert status == 0
    assert f"example:\n  mi-ref {name}" in out
