"""Direct logit attribution sums to the recorded logits in every family, part by part."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, TokenError, at
from mi_ref.analysis.residual.logits import By, logit_attribution
from mi_ref.analysis.residual.parts import Component
from mi_ref.config.decoder import LayerNorm
from mi_ref.testing import GoldenCase

Load = Callable[[str, Backend, str], Model]

# One case is longer than its model was made for, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:the prompt has 9 tokens")
PROMPT = "The capital of France is"
BOUND = 1e-12
TARGET, OTHER = 5, 11


def off(actual: Any, desired: Any) -> float:
    return float(np.linalg.norm(np.subtract(actual, desired)) / np.linalg.norm(desired))


@pytest.mark.parametrize(
    ("by", "other"), [("component", OTHER), ("component", None), ("head", OTHER), ("neuron", None)]
)
def test_parts_sum_to_the_recorded_logits(
    golden: GoldenCase, load: Load, by: By, other: int | None
) -> None:
    model = load(golden.name, mi_ref.get_backend("numpy"), "float64")
    needed = {"head": ".hook_z", "neuron": "mlp.hook_post"}.get(by, "")
    if not any(hook.endswith(needed) for hook in golden.hooks):
        with pytest.raises(HookError, match=r"at\.(result|post)"):
            logit_attribution(model, golden.tokens[0], TARGET, by=by)
        return
    found = logit_attribution(model, golden.tokens[0], TARGET, other, by=by, positions=None)
    logits = golden.expected("unembed.hook_out")[0]
    less = logits.mean(axis=-1) if other is None else logits[:, other]
    assert off(found.totals, logits[:, TARGET] - less) <= BOUND
    assert off(np.sum(found.contributions, axis=0), logits[:, TARGET] - less) <= BOUND


def by_hand(model: Model, golden: GoldenCase, written: Any) -> Any:
    """Return what a vector ``[pos, d_model]`` in the stream adds to a logit difference."""
    scale = golden.expected("ln_final.hook_scale")[0]
    if isinstance(model.cfg.ln_final, LayerNorm):
        written = written - written.mean(axis=-1, keepdims=True)
    normed = written / scale * model.params.ln_final.weight
    logits = normed @ model.W_U
    return logits[:, TARGET] - logits[:, OTHER]


def test_each_part_by_hand(golden: GoldenCase, load: Load) -> None:
    model = load(golden.name, mi_ref.get_backend("numpy"), "float64")
    found = logit_attribution(model, golden.tokens[0], TARGET, OTHER, positions=None)
    parts = dict(zip(found.components, found.contributions, strict=True))
    for layer in range(model.cfg.n_layers):
        for name in ("attn", "mlp"):
            written = golden.expected(f"blocks.{layer}.hook_{name}_out")[0]
            wanted = by_hand(model, golden, written)
            assert off(parts[Component(name, layer)], wanted) <= 1e-11
    bias = model.params.ln_final.bias
    assert (Component("final norm bias") in parts) is (bias is not None)
    if bias is not None:
        wanted = bias @ model.W_U
        own = parts[Component("final norm bias")]
        assert np.allclose(own, wanted[TARGET] - wanted[OTHER], rtol=1e-11)
    bias = model.params.unembed.bias
    assert (Component("unembedding bias") in parts) is (bias is not None)
    if bias is not None:
        own = parts[Component("unembedding bias")]
        assert np.allclose(own, bias[TARGET] - bias[OTHER], rtol=1e-12)


@pytest.mark.parametrize("case", ["gemma2", "starcoder2", "llama-biases"])
def test_heads_by_hand(repository: Path, load: Load, case: str) -> None:
    golden = GoldenCase(repository / "golden" / "data" / case)
    model = load(case, mi_ref.get_backend("numpy"), "float64")
    found = logit_attribution(model, golden.tokens[0], TARGET, OTHER, by="head", positions=None)
    parts = dict(zip(found.components, found.contributions, strict=True))
    for layer in range(model.cfg.n_layers):
        z = golden.expected(f"blocks.{layer}.attn.hook_z")[0]
        norm = model.params.blocks[layer].ln1_post
        for head in range(model.cfg.n_heads):
            written = z[:, head] @ model.W_O[layer, head]
            if norm is not None:
                scale = golden.expected(f"blocks.{layer}.ln1_post.hook_scale")[0]
                written = written / scale * norm.weight
            wanted = by_hand(model, golden, written)
            assert off(parts[Component("head", layer, head)], wanted) <= 1e-11


def test_a_soft_capped_models_logits_are_those_before_the_cap(load: Load) -> None:
    model = load("gemma2", mi_ref.get_backend("numpy"), "float64")
    cap = model.cfg.softcap
    assert cap is not None
    found = logit_attribution(model, [1, 2, 3], TARGET, OTHER)
    capped = model.backend.to_host(model.run([1, 2, 3]).logits)[0, -1]
    raw = cap * np.arctanh(capped / cap)
    assert found.totals[0] == pytest.approx(raw[TARGET] - raw[OTHER], rel=1e-9)
    assert found.totals[0] != pytest.approx(capped[TARGET] - capped[OTHER], rel=1e-3)
    assert "uncapped" in str(found)
    assert found.record()["before_softcap"] is True


@pytest.mark.parametrize("case", ["llama2", "gpt2", "rwkv6"])
def test_every_array_library(backend: Backend, load: Load, case: str) -> None:
    model = load(case, backend, "float32")
    found = logit_attribution(model, [3, 1, 4], TARGET, by="neuron", positions=[0, -1])
    run = model.run([3, 1, 4])
    row = model.backend.to_host(run.logits)[0, [0, 2]].astype(np.float64)
    assert off(found.totals, row[:, TARGET] - row.mean(axis=-1)) <= 1e-5


def test_one_position_is_that_of_all(atlas: Model) -> None:
    every = logit_attribution(atlas, PROMPT, " Paris", " Rome", positions=None)
    last = logit_attribution(atlas, PROMPT, " Paris", " Rome")
    assert last.positions == (5,)
    column = [row[5] for row in every.contributions]
    assert np.allclose([row[0] for row in last.contributions], column, rtol=1e-4, atol=1e-5)


def test_atlas_decides_in_its_last_mlps(atlas: Model) -> None:
    found = logit_attribution(atlas, PROMPT, " Paris", " Rome")
    logits = atlas.run(PROMPT).logits_at()
    paris, rome = (atlas.to_single_token(t) for t in (" Paris", " Rome"))
    assert found.totals[0] == pytest.approx(float(logits[paris] - logits[rome]), rel=1e-5)
    assert found.top(1)[0][0] == Component("mlp", 5)
    assert found.top(1)[0][1] > 5
    ranked = [abs(value) for _, value in found.top(99)]
    assert ranked == sorted(ranked, reverse=True)
    assert len(ranked) == 13


def test_refusals(tiny: Model, as_users_call: None) -> None:
    with pytest.raises(ValueError, match="by='layer': expected 'component', 'head' or 'neuron'"):
        logit_attribution(tiny, [1, 2], 3, by="layer")  # type: ignore[arg-type]
    with pytest.raises(TokenError, match="token id 999 is out of range"):
        logit_attribution(tiny, [1, 2], 3, 999)
    with pytest.raises(TokenError, match="a logit difference needs two tokens"):
        logit_attribution(tiny, [1, 2], 3, 3)
    with pytest.raises(ShapeError, match="one prompt is needed, not 2"):
        logit_attribution(tiny, [[1, 2], [3, 4]], 3)
    found = logit_attribution(tiny, [1, 2], 3)
    with pytest.raises(ShapeError, match=r"position 0 is not among \[1\]"):
        found.top(position=0)


def test_table_record_and_pictures(atlas: Model, tmp_path: Path) -> None:
    found = logit_attribution(atlas, PROMPT, " Paris", " Rome")
    lines = str(found.table(3)).splitlines()
    assert lines[0] == "logit ' Paris' − ' Rome', at 5"
    assert lines[-2].split()[:2] == ["10", "others"]
    assert lines[-1].split() == ["sum", f"{found.totals[0]:+.3f}", "+100.0%"]
    shown = [float(line.split()[-2]) for line in lines[-5:-1]]
    assert sum(shown) == pytest.approx(found.totals[0], abs=0.003)
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["components"][1] == {"kind": "attn", "layer": 0, "index": None}
    assert record["contributions"] == [list(row) for row in found.contributions]
    assert (record["target"], record["other"]) == (found.target, found.other)
    for by in ("component", "head", "neuron"):
        path = tmp_path / f"{by}.png"
        logit_attribution(atlas, PROMPT, " Paris", by=by).plot(path)
        assert path.read_bytes()[:4] == b"\x89PNG"


def test_what_the_norm_divides_by_is_that_of_the_run(atlas: Model) -> None:
    """The scale is frozen: a part's share does not depend on the other selected parts."""
    run = atlas.run(PROMPT, capture=[at.ln_final_scale, at.mlp_out[5]])
    scale = float(run[at.ln_final_scale][0, -1, 0])
    paris, rome = (atlas.to_single_token(t) for t in (" Paris", " Rome"))
    direction = atlas.params.ln_final.weight * (atlas.W_U[:, paris] - atlas.W_U[:, rome])
    wanted = float(run[at.mlp_out[5]][0, -1] @ direction) / scale
    found = logit_attribution(atlas, PROMPT, " Paris", " Rome", by="head")
    parts = dict(zip(found.components, found.contributions, strict=True))
    assert parts[Component("mlp", 5)][0] == pytest.approx(wanted, rel=1e-5)
