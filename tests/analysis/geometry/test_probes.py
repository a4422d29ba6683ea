"""Linear probes find a label that is there and none that is not, and keep the split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, Model, ShapeError, at
from mi_ref.analysis.geometry.probes import linear_probes

Load = Callable[[str, Backend, str], Model]

CAPITALS = ["France", "Italy", "Spain", "Peru", "Kenya", "Japan", "Norway", "Egypt", "Chile",
            "Cuba", "Greece", "Poland"]  # fmt: skip
PROMPTS = [f"The capital of {name} is" for name in CAPITALS] + [
    f"People who live in {name} speak" for name in CAPITALS
]
LABELS = ["capital"] * 12 + ["language"] * 12


def test_without_scikit_learn_it_says_what_to_install(
    tiny: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mi_ref.analysis.geometry.probes.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mi_ref\[probes\]'"):
        linear_probes(tiny, [[1], [2]], [0, 1])


def test_what_is_there_is_found(atlas: Model) -> None:
    pytest.importorskip("sklearn")
    found = linear_probes(atlas, PROMPTS, LABELS, layers=[1, -1], held_out=0.5)
    assert [p.layer for p in found.probes] == [1, 5]
    for p in found.probes:
        assert p.train == p.test == 1.0
        assert p.control < 0.9
        assert p.selectivity == p.test - p.control
    assert found.majority == 0.5
    assert found.classes == ("capital", "language")
    kept = [LABELS[n] for n in found.held_out]
    assert kept.count("capital") == kept.count("language") == 6


def test_what_is_not_there_is_not_found(atlas: Model) -> None:
    """The first token's embedding is the same in all prompts: nothing to read off."""
    pytest.importorskip("sklearn")
    found = linear_probes(atlas, PROMPTS, LABELS, site=at.resid_pre, layers=[0], position=0)
    assert found.probes[0].test == pytest.approx(0.5)
    assert found.probes[0].train == pytest.approx(0.5)


def test_directions_separate_the_activations_themselves(load: Load) -> None:
    pytest.importorskip("sklearn")
    model = load("rwkv7", mi_ref.get_backend("numpy"), "float64")
    rng = np.random.default_rng(0)
    prompts = [[int(n) for n in rng.integers(0, 30, size=3 + k % 4)] + [31 + k % 3]
               for k in range(30)]  # fmt: skip
    labels = [k % 3 for k in range(30)]
    found = linear_probes(model, prompts, labels, site=at.resid_pre, layers=[0])
    assert found.probes[0].test == 1.0
    assert found.directions[0].shape == (3, model.cfg.d_model)
    rows = [model.run(p, capture=[at.resid_pre[0]])[at.resid_pre[0]][0, -1] for p in prompts]
    scores = np.stack(rows) @ np.asarray(found.directions[0]).T
    for label in range(3):
        own = scores[np.array(labels) == label, label]
        others = scores[np.array(labels) != label, label]
        assert own.min() > others.max()


@pytest.mark.bits
def test_the_same_seed_gives_the_same(atlas: Model) -> None:
    pytest.importorskip("sklearn")
    first, again, other = (
        linear_probes(atlas, PROMPTS, LABELS, layers=[0], seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.held_out != other.held_out


def test_refusals(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mi_ref.analysis.geometry.probes.find_spec", lambda name: name)
    with pytest.raises(ShapeError, match="1 prompts and 2 labels"):
        linear_probes(tiny, [[1]], [0, 1])
    with pytest.raises(ShapeError, match=r"occur \{0: 2\}: a probe needs two"):
        linear_probes(tiny, [[1], [2]], [0, 0])
    with pytest.raises(ShapeError, match=r"held_out=1\.0: it is a share"):
        linear_probes(tiny, [[1], [2], [3], [4]], [0, 0, 1, 1], held_out=1.0)
    with pytest.raises(ShapeError, match=r"regularisation=0\.0: it has to be above 0"):
        linear_probes(tiny, [[1], [2], [3], [4]], [0, 0, 1, 1], regularisation=0.0)
    with pytest.raises(ShapeError, match=r"layers \[7\] of 2"):
        linear_probes(tiny, [[1], [2], [3], [4]], [0, 0, 1, 1], layers=[7])


def test_table_record_and_picture(atlas: Model, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    found = linear_probes(atlas, PROMPTS, LABELS, site=at.z, layers=[0, 5])
    assert str(found).splitlines()[-1].split()[0] == "5"
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["labels"] == LABELS
    assert record["held_out"] == list(found.held_out)
    assert record["site"] == "z"
    assert record["probes"][0]["test"] == found.probes[0].test
    assert record["provenance"]["seed"] == 0
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
