"""Each example runs offline on the bundled model and finds what is there."""

from __future__ import annotations

import pytest

from examples import patch_the_subject


def test_the_subject_carries_the_capital(capsys: pytest.CaptureFixture[str]) -> None:
    patch_the_subject.main()
    rows = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip()]
    cells = {int(row[0]): [float(cell) for cell in row[1:]] for row in rows if row[0].isdigit()}
    # Early on the country is where the capital is; after the last block but one, the last token.
    assert cells[0][4] > 0.9
    assert cells[0][5] < 0.1
    assert cells[5][4] < 0.1
    assert cells[5][5] > 0.5
