"""What the commands that ask a model something refuse, and how they say so."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_calls import call

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
        (["trace", "--prompt", FRANCE, "--subject", "Spain"], "subject='Spain' is no part of"),
        (["ablate", "--prompt", FRANCE, "--method", "mean"], "mean ablation needs reference="),
        (["ablate", "--prompt", FRANCE, "--index", "8"], "indices=[8]: name some of 0 to 7"),
        (["attribute", "--prompt", FRANCE, "--target", "Zzz"], "'Zzz' is not one token"),
        (["rwkv-state", "--prompt", FRANCE, "--model", "atlas"], "at.rwkv_state does not exist"),
        (["rwkv-state", "--prompt", FRANCE, "--patch-from", "of"], "end on 0 tokens in common"),
        (["rwkv-state", "--prompt", FRANCE, "--patch-from", FRANCE], "end on 6 tokens in common"),
        (["positions", "--prompt", FRANCE, "--span", "Spain"], "occurs 0 times"),
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
    ("arguments", "said"),
    [
        (["patterns", "--prompt", FRANCE, "--head", "1"], "--head is of a layer"),
        (["steer", "--prompt", FRANCE, "--toward", ITALY], "needs both --toward and --away"),
        (["steer", "--prompt", FRANCE, *VECTOR, "--key", "4"], "--key: only of an attention edge"),
        (["steer", "--prompt", FRANCE, "--read", "4"], "--read: only of a steering vector"),
        (["steer", "--prompt", FRANCE, "--scale", "nan"], "'nan' is no finite number"),
        (["steer", "--prompt", FRANCE, "--scale", "1", "--weight", "1"], "give one of them"),
        (["patch", *PAIR, "--by", "neuron"], "--by neuron needs one --layer"),
        (["patch", *PAIR, "--index", "2"], "--index is of --by head and --by neuron"),
        (["patch", *PAIR, "--block-size", "2"], "--block-size is of --by block"),
        (["attribute", "--prompt", FRANCE], "the following arguments are required: --target"),
        (["rwkv-state", "--prompt", FRANCE, "--layer", "1"], "--target and --layer are of"),
        (["rwkv-state", "--prompt", FRANCE, "--knockout", "--reads"], "not allowed with"),
        (["ablate", "--prompt", FRANCE, "--what", "brain"], "invalid choice: 'brain'"),
    ],
)
def test_wrong_usage_is_status_2(capsys: Capsys, arguments: list[str], said: str) -> None:
    status, out, err = call(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"usage: mi-ref {arguments[0]} ")
    assert said in err
