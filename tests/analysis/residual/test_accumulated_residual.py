"""The residual stream as it grows: against recorded activations and the other decompositions."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, TokenError, at, capture
from mi_ref.analysis.lens.logit_lens import logit_lens
from mi_ref.analysis.residual.accumulated import accumulated_residual
from mi_ref.analysis.residual.decomposition import residual_decomposition
from mi_ref.analysis.residual.logits import logit_attribution
from mi_ref.testing import GoldenCase

Load = Callable[[str, Backend, str], Model]

# One case is longer than its model was made for, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:the prompt has 9 tokens")
PROMPT = "The capital of France is"
BOUND = 1e-12


def off(actual: Any, desired: Any) -> float:
    return float(np.linalg.norm(actual - desired) / np.linalg.norm(desired))


@pytest.fixture(scope="module")
def atlas() -> Model:
    return mi_ref.from_pretrained("atlas")


@pytest.fixture
def model(golden: GoldenCase, load: Load) -> Model:
    return load(golden.name, mi_ref.get_backend("numpy"), "float64")


def test_streams_are_what_was_recorded(golden: GoldenCase, model: Model) -> None:
    found = accumulated_residual(model, golden.tokens[0], positions=None)
    streams = dict(zip(found.stages, np.asarray(found.streams), strict=True))
    assert off(streams["embed"], golden.expected("blocks.0.hook_resid_pre")[0]) <= BOUND
    for layer in range(model.cfg.n_layers):
        mid = f"blocks.{layer}.hook_resid_mid"
        assert (f"attn {layer}" in streams) == (mid in golden.hooks)
        if mid in golden.hooks:
            assert off(streams[f"attn {layer}"], golden.expected(mid)[0]) <= BOUND
        name = f"mlp {layer}" if mid in golden.hooks else f"layer {layer}"
        recorded = golden.expected(f"blocks.{layer}.hook_resid_post")[0]
        assert off(streams[name], recorded) <= BOUND
    final = streams[found.stages[-1]]
    for stage, stream in enumerate(streams.values()):
        assert np.allclose(found.norms[stage], np.linalg.norm(stream, axis=-1), rtol=BOUND)
        lengths = np.linalg.norm(stream, axis=-1) * np.linalg.norm(final, axis=-1)
        assert np.allclose(found.cosines[stage], (stream * final).sum(-1) / lengths, atol=BOUND)


def test_both_logits_end_at_the_models_own(golden: GoldenCase, model: Model) -> None:
    ids, n_pos = golden.tokens[0], len(golden.tokens[0])
    run = model.run(ids, capture=[capture(at.logits, pos=list(range(n_pos)))])
    logits = np.asarray(run[at.logits])[0]
    scale = np.abs(logits).max()
    for target, other in ((7, None), (7, 9)):
        found = accumulated_residual(model, ids, target, other, positions=None)
        wanted = logits[:, 7] - (0 if other is None else logits[:, 9])
        for rows in (found.frozen, found.own):
            assert rows is not None
            assert np.abs(np.asarray(rows[-1]) - wanted).max() <= BOUND * scale


def test_steps_are_the_parts(golden: GoldenCase, model: Model) -> None:
    """Each stage exceeds the previous one by exactly what was written between them."""
    ids = golden.tokens[0]
    found = accumulated_residual(model, ids, 7, 9, positions=None)
    parts = residual_decomposition(model, ids, positions=None)
    written = dict(zip(map(str, parts.components), np.asarray(parts.values), strict=True))
    direct = logit_attribution(model, ids, 7, 9, positions=None)
    logits = dict(zip(map(str, direct.components), np.asarray(direct.contributions), strict=True))
    assert found.frozen is not None
    streams, frozen = np.asarray(found.streams), np.asarray(found.frozen)
    size = np.abs(frozen).max() + np.abs(streams).max()
    for stage, name in enumerate(found.stages[1:], start=1):
        layer = name.split()[1]
        between = [name] if name in written else [f"attn {layer}", f"mlp {layer}"]
        step = sum(written[each] for each in between)
        assert np.abs(streams[stage] - streams[stage - 1] - step).max() <= BOUND * size
        moved = sum(logits[each] for each in between)
        assert np.abs(frozen[stage] - frozen[stage - 1] - moved).max() <= BOUND * size


@pytest.mark.parametrize("case", ["llama2", "gpt2", "gemma2", "gpt-neox-parallel", "rwkv6"])
def test_own_logits_are_the_lens(load: Load, case: str) -> None:
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    found = accumulated_residual(model, [5, 17, 8], 7, mid=False, positions=None)
    lens = logit_lens(model, [5, 17, 8], target=7)
    assert found.stages == ("embed", *(f"layer {n}" for n in range(model.cfg.n_layers)))
    assert found.own is not None
    cap = model.cfg.softcap
    for layer, row in enumerate(found.own[1:]):
        capped = row if cap is None else cap * np.tanh(np.asarray(row) / cap)
        assert np.allclose(capped, [cell.target.logit for cell in lens.cells[layer]], rtol=1e-11)
    # Freezing the norm makes a difference before the end.
    assert found.frozen is not None
    assert abs(found.frozen[0][-1] - found.own[0][-1]) > 1e-3


@pytest.mark.parametrize("case", ["llama2", "gpt2", "rwkv7"])
def test_every_array_library(backend: Backend, load: Load, case: str) -> None:
    found = accumulated_residual(load(case, backend, "float32"), [3, 1, 4], 7, positions=None)
    exact = load(case, mi_ref.get_backend("numpy"), "float64")
    wanted = accumulated_residual(exact, [3, 1, 4], 7, positions=None)
    for name in ("norms", "cosines", "frozen", "own"):
        assert np.allclose(getattr(found, name), getattr(wanted, name), rtol=1e-4, atol=1e-5)


def test_refusals(load: Load, tiny: Model) -> None:
    with pytest.raises(TokenError, match=r"other=9 is what a target is compared with"):
        accumulated_residual(tiny, [1, 2], None, 9)
    parallel = load("gpt-neox-parallel", mi_ref.get_backend("numpy"), "float64")
    with pytest.raises(HookError, match=r"at\.resid_mid.* does not exist in this model"):
        accumulated_residual(parallel, [1, 2], mid=True)


def test_table_summary_record_and_picture(atlas: Model, tmp_path: Path) -> None:
    found = accumulated_residual(atlas, PROMPT, " Paris", " Rome", positions=[0, -1])
    lines = str(found).splitlines()
    assert lines[0] == "residual stream at position 5, ' is'; logit ' Paris' − ' Rome'"
    assert lines[-1].split()[:2] == ["mlp", "5"]
    assert lines[-1].split()[-2:] == ["+17.224", "+17.224"]
    assert found.summary().endswith("17.224 after mlp 5; mlp 5 moves it most.")
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["format"] == "mi_ref.accumulated_residual/1"
    assert record["frozen"] == [list(row) for row in found.frozen or ()]
    assert record["own"] == [list(row) for row in found.own or ()]
    assert (record["target"]["text"], record["other"]["text"]) == (" Paris", " Rome")
    assert record["before_softcap"] is False
    plain = accumulated_residual(atlas, PROMPT)
    assert (plain.frozen, plain.own, plain.target) == (None, None, None)
    assert plain.summary().startswith("The norm is 1.493 after embed")
    for n, each in enumerate((found, plain)):
        each.plot(tmp_path / f"{n}.png")
        assert (tmp_path / f"{n}.png").read_bytes()[:4] == b"\x89PNG"
