"""The command line, called as its entry point is: output, exit status, messages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest

import mi_ref
from mi_ref.analysis import logit_lens
from mi_ref.cli import main
from mi_ref.cli.commands import lens as lens_command

PROMPT = "The capital of France is"
Outcome = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Call the program; return its exit status, output and messages."""

    def call(*arguments: str | Path) -> Outcome:
        try:
            status = main(list(map(str, arguments)))
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else 1
        return status, *capsys.readouterr()

    return call


def test_lens_shows_model_tokens_layers_and_a_conclusion(run: Callable[..., Outcome]) -> None:
    status, out, err = run("lens", "--prompt", PROMPT)
    assert (status, err) == (0, "")
    lens = logit_lens(mi_ref.from_pretrained("atlas"), PROMPT, positions=-1)
    lines = out.splitlines()
    assert lines[0].startswith("atlas  llama, 6 layers, d_model 128, ")
    assert lines[0].endswith(" parameters; numpy float32 on cpu")
    assert lines[1].startswith("tokens  0 '<|bos|>'  1 'The'  2 ' capital'")
    assert str(lens) in out
    assert lines[-1] == lens.summary()
    assert "\x1b" not in out


def test_lens_follows_a_target_at_several_positions(run: Callable[..., Outcome]) -> None:
    positions = ["--position", "-1", "--position", "2"]
    status, out, _ = run("lens", "--prompt", PROMPT, "--target", " Paris", *positions)
    assert status == 0
    assert "after position 5, ' is': target ' Paris'" in out
    assert "after position 2, ' capital': target ' Paris'" in out


def test_lens_everywhere(run: Callable[..., Outcome]) -> None:
    status, out, _ = run("lens", "--prompt", PROMPT, "--position", "all")
    assert status == 0
    assert "likeliest next token after each position, by layer" in out
    assert "layer 0" in out


def test_lens_options_reach_the_model(run: Callable[..., Outcome]) -> None:
    status, out, _ = run("lens", "--prompt", "is", "--no-bos", "--dtype", "float64", "--json", "-")
    assert status == 0
    record = json.loads(out)
    assert record["provenance"]["dtype"] == "float64"
    assert len(record["tokens"]) == len(record["positions"]) == 1


def test_lens_writes_plot_and_json(run: Callable[..., Outcome], tmp_path: Path) -> None:
    plot, record = tmp_path / "lens.png", tmp_path / "lens.json"
    status, _, err = run("lens", "--prompt", PROMPT, "--plot", plot, "--json", record)
    assert (status, err) == (0, "")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert json.loads(record.read_text(encoding="utf-8"))["positions"] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("option", "path", "said"),
    [
        ("--json", "missing/lens.json", "there is no folder"),
        ("--json", "", "is a folder"),
        ("--plot", "missing/lens.png", "there is no folder"),
        ("--plot", "lens.txt", "a plot's name ends in .png, .svg, .pdf"),
    ],
)
def test_output_paths_are_checked_before_anything_is_computed(
    run: Callable[..., Outcome], tmp_path: Path, option: str, path: str, said: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.delattr(mi_ref, "from_pretrained")
    status, out, err = run("lens", "--prompt", PROMPT, option, tmp_path / path)
    assert (status, out) == (1, "")
    assert err.startswith("mi-ref: error: ")
    assert said in err
    assert err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_missing_matplotlib_is_told_first(
    run: Callable[..., Outcome], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    status, _, err = run("lens", "--prompt", PROMPT, "--plot", tmp_path / "a.png")
    assert status == 1
    assert "pip install 'mi_ref[plot]'" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--target", " Paris is"], "' Paris is' is not one token"),
        (["--position", "99"], "positions [99] of 6: expected indices from -6 to 5"),
        (["--backend", "cuppy"], "no backend named 'cuppy'"),
        (["--device", "gpu:7"], "NumPy runs on the CPU"),
        (["--model", "./nowhere"], "there is no folder './nowhere'"),
    ],
)
def test_errors_are_one_message_and_status_1(
    run: Callable[..., Outcome], arguments: list[str], said: str
) -> None:
    status, out, err = run("lens", "--prompt", PROMPT, *arguments)
    assert (status, out) == (1, "")
    assert err.startswith("mi-ref: error: ")
    assert said in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["lense"],
        ["lens"],
        ["lens", "--prompt", "x", "--top", "0"],
        ["lens", "--prompt", "x", "--position", "last"],
        ["lens", "--prompt", "x", "--dtype", "float16"],
        ["hooks", "--grep", "("],
    ],
)
def test_wrong_usage_is_status_2(run: Callable[..., Outcome], arguments: list[str]) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("usage: mi-ref")


def test_hooks_lists_every_point(run: Callable[..., Outcome]) -> None:
    status, out, _ = run("hooks")
    assert status == 0
    assert out == f"{mi_ref.from_pretrained('atlas').hook_points}\n"


def test_hooks_with_shapes_and_a_pattern(run: Callable[..., Outcome], repository: Path) -> None:
    model = repository / "golden/data/llama2"
    status, out, _ = run(
        "hooks", "--model", model, "--batch", "2", "--pos", "5", "--grep", "HOOK_Z"
    )
    assert status == 0
    (row,) = out.splitlines()[2:]
    assert "2 × 5 × 4 × 6" in row
    assert run("hooks", "--grep", "zzz")[::2] == (
        1, "mi-ref: error: no hook point of atlas matches 'zzz'.\n",
    )  # fmt: skip


def test_tokens_with_their_places(run: Callable[..., Outcome]) -> None:
    status, out, _ = run("tokens", "of é")
    assert status == 0
    rows = [line.split() for line in out.splitlines()[2:]]
    assert rows[0][2:] == ["'<|bos|>'", *["not", "in", "the", "text"] * 2]
    assert rows[-1][-2:] == ["3:4", "4:5"]
    assert "<|bos|>" not in run("tokens", "--no-bos", "of")[1]


def test_inspect_tells_and_writes(run: Callable[..., Outcome], tmp_path: Path) -> None:
    status, out, _ = run("inspect", "atlas", "--json", tmp_path / "atlas.json")
    assert status == 0
    assert "yes, as far as headers show" in out
    record = json.loads((tmp_path / "atlas.json").read_text(encoding="utf-8"))
    assert json.loads(run("inspect", "atlas", "--json", "-")[1]) == record


def test_version_and_help(run: Callable[..., Outcome]) -> None:
    assert run("--version")[:2] == (0, f"mi-ref {version('mi_ref')}\n")
    for command in ("lens", "hooks", "tokens", "inspect"):
        status, out, _ = run(command, "--help")
        assert status == 0
        assert f"example:\n  mi-ref {command}" in out


def test_the_package_runs_as_a_module() -> None:
    def ran(*arguments: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "mi_ref", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    assert ran("--version") == (0, f"mi-ref {version('mi_ref')}\n", "")
    status, out, err = ran("tokens", "a", "--model", "/nowhere/at/all")
    assert (status, out) == (1, "")
    assert err.startswith("mi-ref: error: ")


@pytest.mark.parametrize(
    ("raised", "status", "said"),
    [
        (KeyboardInterrupt(), 130, "mi-ref: interrupted\n"),
        (MemoryError("Unable to allocate 9 TiB"), 1,
         "mi-ref: error: not enough memory: Unable to allocate 9 TiB.\n"),
        (MemoryError(), 1, "mi-ref: error: not enough memory.\n"),
        (PermissionError(13, "Permission denied", "x.json"), 1,
         "mi-ref: error: Permission denied: x.json\n"),
    ],
)  # fmt: skip
def test_interrupts_and_the_systems_errors(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch,
    raised: BaseException, status: int, said: str,
) -> None:  # fmt: skip
    def stop(_: object) -> None:
        raise raised

    monkeypatch.setattr(lens_command, "run", stop)
    assert run("lens", "--prompt", "x") == (status, "", said)


def test_a_reader_that_leaves_early_is_no_error_to_talk_about() -> None:
    code = "from mi_ref.cli import main; raise SystemExit(main(['hooks']))"
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_own_mistakes_are_not_hidden(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(lens_command, "run", fail)
    with pytest.raises(ZeroDivisionError):
        run("lens", "--prompt", "x")


def test_terminals_without_the_characters(
    run: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    from mi_ref.output.tables import Table

    written: list[str] = []
    stdout = SimpleNamespace(encoding="ascii", write=written.append, isatty=lambda: False)
    monkeypatch.setattr(sys, "stdout", stdout)
    table = Table(["a"])
    table.add("b")
    table.print()
    assert "".join(written).isascii()
