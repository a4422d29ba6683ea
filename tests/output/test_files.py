"""Saved results: strict JSON, and a complete file or none."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mi_ref.output.files import json_text, write_whole


def test_json_has_no_infinities() -> None:
    text = json_text({"a": math.inf, "b": [-math.inf, 1.5], "c": {"d": math.nan}})
    found = json.loads(text)
    assert found["a"] == "Infinity"
    assert float(found["b"][0]) == -math.inf
    assert math.isnan(float(found["c"]["d"]))


def test_a_failed_save_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text("old")

    def fail(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("out of luck")

    with pytest.raises(RuntimeError, match="out of luck"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
