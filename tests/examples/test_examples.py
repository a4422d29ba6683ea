"""Each example runs offline on the bundled model and gives the known findings."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from examples import patch_the_subject, rwkv_state

EXAMPLES = Path(patch_the_subject.__file__).parent
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def test_the_subject_carries_the_capital(capsys: pytest.CaptureFixture[str]) -> None:
    patch_the_subject.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    cells = {int(row[0]): [float(cell) for cell in row[1:]] for row in rows if row[0].isdigit()}
    # Early on the country is where the capital is; after the last block but one, the last token.
    assert cells[0][4] > 0.9
    assert cells[0][5] < 0.1
    assert cells[5][4] < 0.1
    assert cells[5][5] > 0.5


def test_one_heads_state_carries_the_capital(capsys: pytest.CaptureFixture[str]) -> None:
    table = rwkv_state.main()
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.strip()[:1].isdigit()]
    chances = {
        (int(row[0]), head): float(cell) for row in rows for head, cell in enumerate(row[1:])
    }
    assert len(table) == 4
    assert max(chances, key=chances.__getitem__) == (3, 2)
    assert chances.pop((3, 2)) > 0.8
    assert max(chances.values()) < 0.05
    said = {line[:24].strip(): line for line in lines if "likeliest" in line}
    assert "' Paris' 0.99" in said["as it is"]
    assert "' Paris' 0.000" in said["' France' writes nothing"]
    assert "' Paris' 0.000" in said["' France' removed"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_example_is_a_command(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as left:
        runpy.run_path(str(script), run_name="__main__")
    assert left.value.code == 0
    out = capsys.readouterr().out
    usage = next(line for line in out.splitlines() if f"python examples/{script.name}" in line)
    # The page's own line names every option that there is.
    assert set(re.findall(r"--\w+", usage)) == set(re.findall(r"^  (--\w+)", out, re.M))
    assert "--model" in usage
    assert len(script.read_text(encoding="utf-8").splitlines()) <= 60
