"""``--ids``: commands on models without a tokenizer, and prompts that no text produces."""

from __future__ import annotations

import argparse
import json
from functools import cache
from pathlib import Path

import pytest

import mi_ref
from mi_ref.cli import _parser, token_ids
from tests.cli.test_cli_analyses import numbers_in
from tests.fixtures.cli_calls import call

FRANCE, FRANCE_IDS = "The capital of France is", "0,389,290,277,1418,268"
ITALY, ITALY_IDS = "The capital of Italy is", "0,389,290,277,1428,268"
PARIS, ROME = ("1955", " Paris"), ("1745", " Rome")
FIRST, SECOND = "5,17,3,9", "5,17,8,9"
LOAD = cache(mi_ref.from_pretrained)
Capsys = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load each model once."""
    monkeypatch.setattr(mi_ref, "from_pretrained", LOAD)


WITHOUT_TOKENIZER = [
    ["lens", "--prompt", FIRST, "--target", "0"],
    ["patterns", "--prompt", FIRST],
    ["heads", "--prompt", "5,6,5,6"],
    ["knockout", "--prompt", FIRST, "--target", "0"],
    ["knockout", "--prompt", FIRST, "--grid"],
    ["steer", "--prompt", FIRST],
    ["steer", "--prompt", FIRST, "--toward", FIRST, "--away", SECOND, "--target", "0"],
    ["patch", "--clean", FIRST, "--corrupted", SECOND, "--target", "1", "--other", "0"],
    ["patch", "--clean", FIRST, "--corrupted", SECOND, "--by", "block", "--block-size", "1"],
    ["paths", "--clean", FIRST, "--corrupted", SECOND],
    ["trace", "--prompt", FIRST, "--subject", "1,2", "--draws", "2"],
    ["ablate", "--prompt", FIRST, "--reference", SECOND, "--method", "mean", "--target", "0"],
    ["ablate", "--prompt", FIRST, "--prompt", SECOND, "--method", "resample", "--what", "mlp"],
    ["attribute", "--prompt", FIRST, "--target", "0", "--other", "1"],
    ["route", "--prompt", FIRST, "--counterfactual", SECOND, "--subject", "2", "--layer", "0"],
    ["converge", "--prompt", FIRST, "--contrast", SECOND],
    ["decompose", "--prompt", FIRST, "--accumulated", "--target", "0"],
    ["feedback", "--prompt", FIRST, "--loop", "0", "1"],
    ["rwkv-state", "--prompt", FIRST],
    ["rwkv-state", "--prompt", FIRST, "--knockout", "--target", "0"],
    ["rwkv-state", "--prompt", FIRST, "--patch-from", SECOND, "--target", "0"],
]


@pytest.mark.parametrize(
    "arguments", WITHOUT_TOKENIZER, ids=[f"{a[0]}-{n}" for n, a in enumerate(WITHOUT_TOKENIZER)]
)
def test_a_model_without_a_tokenizer(
    capsys: Capsys, repository: Path, arguments: list[str]
) -> None:
    case = "rwkv7" if arguments[0] == "rwkv-state" else "llama2"
    model = ["--model", str(repository / "golden" / "data" / case)]
    status, out, err = call(capsys, *arguments, "--ids", *model, "--json", "-")
    assert (status, err) == (0, "")
    ran = {int(number) for number in numbers_in(json.loads(out)["tokens"])}
    assert {5} < ran <= {3, 5, 6, 8, 9, 17}
    status, _, err = call(capsys, *arguments, *model)
    assert status == 1
    assert "has no tokenizer.json. Pass token ids instead" in err


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        (["lens", "--prompt", FRANCE, "--target", PARIS[1]],
         ["lens", "--prompt", FRANCE_IDS, "--target", PARIS[0]]),
        (["trace", "--prompt", FRANCE, "--subject", " France", "--draws", "2"],
         ["trace", "--prompt", FRANCE_IDS, "--subject", "4", "--draws", "2"]),
        (["patch", "--clean", ITALY, "--corrupted", FRANCE, "--target", ROME[1], "--layer", "3"],
         ["patch", "--clean", ITALY_IDS, "--corrupted", FRANCE_IDS, "--target", ROME[0],
          "--layer", "3"]),
        (["ablate", "--prompt", FRANCE, "--target", PARIS[1], "--prompt", ITALY, "--target",
          ROME[1], "--what", "mlp"],
         ["ablate", "--prompt", FRANCE_IDS, "--target", PARIS[0], "--prompt", ITALY_IDS,
          "--target", ROME[0], "--what", "mlp"]),
    ],
)  # fmt: skip
def test_ids_are_what_the_text_is(capsys: Capsys, text: list[str], ids: list[str]) -> None:
    found = call(capsys, *ids, "--ids")
    assert found[0] == 0
    assert found == call(capsys, *text)


def test_every_option_of_text_is_known() -> None:
    """A missing option would pass text to a model without a tokenizer."""
    (commands,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    met = {
        action.dest
        for parser in commands.choices.values()
        if "--ids" in parser._option_string_actions
        for action in parser._actions
        if action.metavar in ("TEXT", "TOKEN", "FILE")
    }
    known = (token_ids.PROMPTS, token_ids.TOKENS, token_ids.POSITIONS, token_ids.TEXTS)
    assert met == {name for names in known for name in names}


def test_a_key_of_the_config_that_nobody_reads(
    capsys: Capsys, repository: Path, tmp_path: Path
) -> None:
    for file in (repository / "golden" / "data" / "llama2").iterdir():
        if file.name in ("config.json", "model.safetensors"):
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps({**config, "new_key": 3}), encoding="utf-8")
    lens = ["lens", "--model", str(tmp_path), "--ids", "--prompt", FIRST]
    status, _, err = call(capsys, *lens)
    assert status == 1
    assert "new_key" in err
    assert call(capsys, *lens, "--allow-unread-config", "new_key")[::2] == (0, "")
