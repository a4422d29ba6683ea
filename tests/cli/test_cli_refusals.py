"""Errors of the commands that run a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.cli_calls import call

FRANCE, ITALY = "The capital of France is", "The capital of Italy is"
PAIR = ["--clean", ITALY, "--corrupted", FRANCE]
VECTOR = ["--toward", ITALY, "--away", FRANCE, "--target", " Rome"]
Capsys = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["patterns", "--prompt", FRANCE, "--layer", "6"], "layers [6] of 6"),
        (["patterns", "--prompt", FRANCE, "--model", "atlas-rwkv7"], "at.pattern does not exist"),
        (["heads", "--model", "atlas-rwkv7"], "at.pattern does not exist in this model"),
        (["heads", "--prompt", FRANCE, "--plot", "a.png"], "no token of these prompts occurs twi"),
        (["knockout", "--prompt", FRANCE, "--key", "9"], "keys [9] of 6"),
        (["knockout", "--prompt", FRANCE, "--query", "1", "--key", "2"], "no edge from queries"),
        (["steer", "--prompt", FRANCE, *VECTOR, "--layer", "6"], "layer [6] of 6"),
        (["steer", "--prompt", FRANCE, *VECTOR, "--site", "embed"], "at.embed belongs to no laye"),
        (["steer", "--prompt", FRANCE, "--weight", "2"], "weights lie between 0 and 1"),
        (["patch", "--clean", FRANCE, "--corrupted", "of"], "clean has 6 tokens"),
        (["patch", *PAIR, "--target", " Paris is"], "' Paris is' is not one token"),
        (["patch", *PAIR, "--site", "resid"], "resid"),
        (["trace", "--prompt", FRANCE, "--subject", "Spain"], "subject='Spain' is not part of"),
        (
            ["ablate", "--prompt", FRANCE, "--index", "8"],
            "indices [8] of 8: expected indices from",
        ),
        (["attribute", "--prompt", FRANCE, "--target", "Zzz"], "'Zzz' is not one token"),
        (["rwkv-state", "--prompt", FRANCE, "--model", "atlas"], "at.rwkv_state does not exist"),
        (["rwkv-state", "--prompt", FRANCE, "--patch-from", "of"], "end on 0 tokens in common"),
        (["rwkv-state", "--prompt", FRANCE, "--patch-from", FRANCE], "end on 6 tokens in common"),
        (["positions", "--prompt", FRANCE, "--span", "Spain"], "occurs 0 times"),
        (["lens", "--ids", "--prompt", "1,9999"], "token ids [9999] are out of range"),
        (
            ["patch", *PAIR, "--resume", "-"],
            "'-' is only valid for --json, which then writes to standard out",
        ),
        (["patch", *PAIR, "--resume", "new/"], "'new/' is a folder: name a file to write"),
        (["patch", *PAIR, "--plot", "-"], "'-' is only valid for --json"),
    ],
)
def test_errors_are_one_message_and_status_1(
    capsys: Capsys, arguments: list[str], said: str, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *arguments, "--json", "found.json")
    assert (status, out) == (1, "")
    assert err.startswith("mi-ref: error: ")
    assert said in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        (["patterns", "--prompt", FRANCE], "mi-ref rwkv-state shows what each token reads."),
        (["heads"], "mi-ref rwkv-state shows what each token reads."),
        (["knockout", "--prompt", FRANCE, "--grid"], "mi-ref rwkv-state shows what each token r"),
        (["route", "--prompt", FRANCE, "--counterfactual", ITALY], "mi-ref rwkv-state shows what"),
        (["steer", "--prompt", FRANCE], "give --toward and --away."),
        (["attribute", "--prompt", FRANCE, "--target", " Paris", "--by", "head"],
         "Use --by component or --by neuron."),
        (["decompose", "--prompt", FRANCE, "--heads"], "Leave out --heads."),
        (["rwkv-state", "--prompt", FRANCE], "mi-ref patterns, heads and knockout show what"),
        (["rwkv-state", "--prompt", FRANCE, "--patch-from", ITALY], "mi-ref patterns, heads and"),
    ],
)  # fmt: skip
def test_a_model_of_the_wrong_kind_is_told_what_to_use(
    capsys: Capsys, arguments: list[str], instead: str
) -> None:
    other = "atlas" if arguments[0] == "rwkv-state" else "atlas-rwkv7"
    status, out, err = call(capsys, *arguments, "--model", other)
    assert (status, out) == (1, "")
    assert "does not exist in this model" in err
    assert instead in err


def test_a_file_is_no_folder_of_pairs(
    capsys: Capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kept").write_text("mine", encoding="utf-8")
    block = ["patch", "--by", "block", "--pairs", "pairs.json", "--resume", "kept"]
    status, _, err = call(capsys, *block)
    assert (status, err.count("\n")) == (1, 1)
    assert "'kept' is a file: name a folder" in err
    assert (tmp_path / "kept").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["patterns", "--prompt", FRANCE, "--head", "1"], "--head is of a layer"),
        (["steer", "--prompt", FRANCE, "--toward", ITALY], "needs both --toward and --away"),
        (["steer", "--prompt", FRANCE, *VECTOR, "--key", "4"], "--key: only of an attention edge"),
        (["steer", "--prompt", FRANCE, "--read", "4"], "--read: only of a steering vector"),
        (["steer", "--prompt", FRANCE, "--scale", "nan"], "'nan' is not a finite number"),
        (["steer", "--prompt", FRANCE, "--scale", "1", "--weight", "1"], "give one of them"),
        (["patch", *PAIR, "--by", "neuron"], "--by neuron needs one --layer"),
        (["patch", *PAIR, "--index", "2"], "--index is of --by head and --by neuron"),
        (["patch", *PAIR, "--block-size", "2"], "--block-size is of --by block"),
        (["attribute", "--prompt", FRANCE], "the following arguments are required: --target"),
        (["rwkv-state", "--prompt", FRANCE, "--layer", "1"], "--target and --layer are of"),
        (["rwkv-state", "--prompt", FRANCE, "--knockout", "--reads"], "not allowed with"),
        (["knockout", "--prompt", FRANCE, "--rows", "4"], "--rows: only of --grid"),
        (["ablate", "--prompt", FRANCE, "--what", "brain"], "invalid choice: 'brain'"),
        (["ablate", "--prompt", FRANCE, "--method", "mean"], "--reference belongs to --method m"),
        (["ablate", "--prompt", FRANCE, "--reference", ITALY], "--reference belongs to --method"),
        (["ablate", "--prompt", FRANCE, "--draws", "2"], "--draws: only of --method resample"),
        (["ablate", "--prompt", FRANCE, "--seed", "0"], "--seed: only of --method resample"),
        (["ablate", "--prompt", FRANCE, "--other", " a"], "--other is taken off a --target"),
        (["steer", "--prompt", FRANCE, *VECTOR, "--query", "0"], "--query: only of an attention"),
        (["rwkv-state", "--prompt", FRANCE, "--rows", "2"], "--rows: only of --knockout and --sc"),
        (["heads", "--prompt", FRANCE, "--seed", "0"], "--seed: only of random prompts"),
        (["heads", "--kind", "induction"], "--kind is of --plot"),
        (["heads", "--period", "0"], "'0' is not a whole number above 0"),
        (["hooks", "--batch", "0"], "'0' is not a whole number above 0"),
        (["hooks", "--pos", "-1"], "'-1' is not a whole number above 0"),
        (["positions", "--prompt", FRANCE, "--span", ""], "an empty text has no tokens"),
        (["lens", "--ids", "--prompt", FRANCE], "argument --prompt: --ids needs token ids, as 5,"),
        (["lens", "--ids", "--prompt", "5", "--target", "a"], "argument --target: --ids needs a t"),
        (["trace", "--ids", "--prompt", "5,6", "--subject", "a"], "--ids needs positions, as 3,4"),
        (["rwkv-state", "--ids", "--prompt", "5", "--patch-from", "a"], "argument --patch-from: "),
        (["rwkv-state", "--ids", "--prompt", "5", "--target", "0"], "--target and --layer are of"),
        (["lens", "--ids", "--no-bos", "--prompt", "5"], "not allowed with argument"),
        (["route", "--ids", "--pairs", "pairs.json"], "--pairs: not beside --ids"),
    ],
)
def test_wrong_usage_is_status_2(capsys: Capsys, arguments: list[str], said: str) -> None:
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"usage: mi-ref {arguments[0]} ")
    assert said in err
