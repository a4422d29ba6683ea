"""A script's main as its command: each parameter is an option."""

from __future__ import annotations

import pytest

from mi_ref import TokenError
from mi_ref.cli.script import run

GIVEN: list[tuple[str, ...]] = []


def main(name: str = "atlas", picture: str | None = None, prompt: str = "100 % of it") -> None:
    if prompt == "bad":
        raise TokenError("a bad prompt.")
    GIVEN.append((name, str(picture), prompt))


def test_options_are_the_parameters() -> None:
    run(main, [])
    run(main, ["--plot", "a.png", "--model", "gpt2", "--prompt", "the"])
    assert GIVEN == [("atlas", "None", "100 % of it"), ("gpt2", "a.png", "the")]


def test_help_tells_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(main, ["--help"])
    assert left.value.code == 0
    out = capsys.readouterr().out
    assert "A script's main as its command" in out
    assert "(default: atlas)" in out
    assert "(default: 100 % of it)" in out
    assert "None" not in out


def test_what_is_wrong_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        run(main, ["--prompt", "bad"])
    assert str(left.value.code).endswith(": error: a bad prompt.")
    with pytest.raises(SystemExit) as left:
        run(main, ["--pormpt", "x"])
    assert left.value.code == 2
    assert "unrecognized arguments: --pormpt" in capsys.readouterr().err


def test_a_parameter_without_a_default_has_to_be_given() -> None:
    def needs(text: str) -> None:
        GIVEN.append((text,))

    with pytest.raises(SystemExit):
        run(needs, [])
    run(needs, ["--text", "x"])
    assert GIVEN[-1] == ("x",)
