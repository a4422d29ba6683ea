"""Every activation that HuggingFace computes, on every array library, at one tolerance."""

from __future__ import annotations

import json
import math
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend
from mi_ref.families import FAMILIES
from mi_ref.testing import GoldenCase, assert_close, golden_cases

Load = Callable[..., mi_ref.Model]

# One case is longer than its model was made for, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:the prompt has 9 tokens")

TOLERANCE = {"float64": 1e-12, "float32": 5e-6}


def compare(model: mi_ref.Model, case: GoldenCase, dtype: str) -> mi_ref.Run:
    """Compare hook by hook in forward order: the first failure points to the mistake."""
    run = model.run(case.tokens, capture=case.hooks)
    for hook in case.hooks:
        try:
            assert_close(
                run[hook],
                case.expected(hook),
                rel=TOLERANCE[dtype],
                backend=model.backend,
                dtype=dtype,
            )
        except AssertionError as error:
            pytest.fail(f"{case.name}, {dtype}: first failing hook is {hook}: {error}")
    return run


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_every_hook(golden: GoldenCase, backend: Backend, dtype: str, load: Load) -> None:
    model = load(golden.name, backend, dtype)
    run = compare(model, golden, dtype)
    unseen = model.run(golden.tokens)
    expected = expected_logits(golden)
    for logits in (run.logits, unseen.logits):
        assert_close(logits, expected, rel=TOLERANCE[dtype], backend=backend, dtype=dtype)
        found = backend.to_host(logits).argmax(axis=-1)
        assert (found == expected.argmax(axis=-1)).all()


def expected_logits(case: GoldenCase) -> Any:
    """Return what a run returns: the last hook, soft-capped where the config says so."""
    last = case.expected("unembed.hook_out")
    config = json.loads((case.folder / "config.json").read_text("utf-8"))
    limit = config.get("final_logit_softcapping")
    return last if limit is None else np.tanh(last / limit) * limit


def test_hook_points_are_those_recorded(golden: GoldenCase, load: Load) -> None:
    model = load(golden.name, mi_ref.get_backend("numpy"), "float64")
    assert [str(entry.point) for entry in model.hook_points] == list(golden.hooks)
    batch, n_pos = np.shape(golden.tokens)
    for entry in model.hook_points:
        assert entry.sizes(batch, n_pos) == golden.expected(str(entry.point)).shape


def test_both_spellings_of_the_config(golden: GoldenCase, load: Load, tmp_path: Path) -> None:
    new = load(golden.name, mi_ref.get_backend("numpy"), "float64")
    shutil.copy(golden.folder / "config_hub.json", tmp_path / "config.json")
    shutil.copy(golden.folder / "model.safetensors", tmp_path)
    old = mi_ref.from_pretrained(tmp_path, dtype="float64")
    assert old.cfg == new.cfg
    compare(old, golden, "float64")


def test_every_family_has_golden_cases(repository: Path) -> None:
    cases = golden_cases(repository / "golden" / "data")
    recorded = Counter(
        json.loads((case.folder / "config.json").read_text("utf-8"))["model_type"] for case in cases
    )
    assert set(recorded) == set(FAMILIES)
    assert recorded["llama"] >= 15


ONE = np.array([[1.0, -math.inf], [2.0, 3.0]])


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (ONE[0], "shape"),
        (ONE.astype(np.float32), "dtype"),
        (ONE.tolist(), "type"),
        (
            np.array([[1.0, -math.inf], [2.0, 3.5]]),
            r"worst at \(1, 1\): .*expected .*3.0, got .*3.5",
        ),
        (np.array([[1.0, 0.0], [2.0, 3.0]]), r"error inf .*worst at \(0, 1\)"),
        (np.array([[-math.inf, -math.inf], [2.0, 3.0]]), r"worst at \(0, 0\)"),
        (np.array([[1.0, -math.inf], [math.nan, 3.0]]), r"error nan .*worst at \(1, 0\)"),
    ],
)
def test_comparison_itself_fails_when_it_should(actual: Any, message: str) -> None:
    backend = mi_ref.get_backend("numpy")
    assert_close(ONE, ONE, rel=0.0, backend=backend)
    with pytest.raises(AssertionError, match=message):
        assert_close(actual, ONE, rel=0.1, backend=backend)
