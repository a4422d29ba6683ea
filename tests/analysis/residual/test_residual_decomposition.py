"""Decomposition of the residual stream compared with recorded activations, in every family."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Backend, HookError, Model, ShapeError, at
from mi_ref.analysis.residual.decomposition import residual_decomposition
from mi_ref.analysis.residual.parts import Component, check_sum
from mi_ref.config.decoder import Layer
from mi_ref.errors import MiRefError
from mi_ref.testing import GoldenCase

Load = Callable[[str, Backend, str], Model]

# One case is longer than its model was made for, and says so.
pytestmark = pytest.mark.filterwarnings("ignore:the prompt has 9 tokens")
PROMPT = "The capital of France is"
BOUND = 1e-12


def off(actual: Any, desired: Any) -> float:
    return float(np.linalg.norm(actual - desired) / np.linalg.norm(desired))


@pytest.fixture
def model(golden: GoldenCase, load: Load) -> Model:
    return load(golden.name, mi_ref.get_backend("numpy"), "float64")


def test_components_are_what_was_recorded_and_sum_to_the_stream(
    golden: GoldenCase, model: Model
) -> None:
    found = residual_decomposition(model, golden.tokens[0], positions=None)
    values = dict(zip(map(str, found.components), found.values, strict=True))
    streams = dict(zip(map(str, found.components), found.accumulated(), strict=True))
    for layer in range(model.cfg.n_layers):
        for name in ("attn", "mlp"):
            recorded = golden.expected(f"blocks.{layer}.hook_{name}_out")[0]
            assert off(values[f"{name} {layer}"], recorded) <= BOUND
        stream = golden.expected(f"blocks.{layer}.hook_resid_post")[0]
        assert off(streams[f"mlp {layer}"], stream) <= BOUND
        if f"blocks.{layer}.hook_resid_mid" in golden.hooks:
            between = golden.expected(f"blocks.{layer}.hook_resid_mid")[0]
            assert off(streams[f"attn {layer}"], between) <= BOUND
    last = golden.expected(f"blocks.{model.cfg.n_layers - 1}.hook_resid_post")[0]
    assert off(found.values.sum(axis=0), last) <= BOUND
    assert ("pos_embed" in values) is model.cfg.learned_positions
    base = streams["pos_embed" if "pos_embed" in values else "embed"]
    assert off(base, golden.expected("blocks.0.hook_resid_pre")[0]) <= BOUND


def test_numbers_are_those_of_the_vectors(golden: GoldenCase, model: Model) -> None:
    found = residual_decomposition(model, golden.tokens[0], positions=[-1, 0])
    n_pos = len(golden.tokens[0])
    assert found.positions == (n_pos - 1, 0)
    last = model.cfg.n_layers - 1
    final = golden.expected(f"blocks.{last}.hook_resid_post")[0][[n_pos - 1, 0]]
    assert off(found.final, final) <= BOUND
    values = np.asarray(found.values)
    assert np.allclose(found.norms, np.linalg.norm(values, axis=-1), rtol=1e-12)
    shares = np.einsum("cpd,pd->cp", values, final) / np.einsum("pd,pd->p", final, final)
    assert np.allclose(found.shares, shares, rtol=1e-9, atol=1e-12)
    assert np.allclose(np.sum(found.shares, axis=0), 1.0, rtol=1e-12)
    streams = np.linalg.norm(np.cumsum(values, axis=0), axis=-1)
    assert np.allclose(found.stream_norms, streams, rtol=1e-12)


def test_heads_are_z_through_their_own_weights(golden: GoldenCase, model: Model) -> None:
    if model.cfg.recurrent:
        with pytest.raises(HookError, match=r"at\.result"):
            residual_decomposition(model, golden.tokens[0], heads=True)
        return
    found = residual_decomposition(model, golden.tokens[0], positions=None, heads=True)
    for layer in range(model.cfg.n_layers):
        z = golden.expected(f"blocks.{layer}.attn.hook_z")[0]
        heads = np.einsum("phd,hdm->hpm", z, model.W_O[layer])
        norm = model.params.blocks[layer].ln1_post
        if norm is not None:
            heads = heads / golden.expected(f"blocks.{layer}.ln1_post.hook_scale")[0] * norm.weight
        own = {c.index: v for c, v in zip(found.components, found.values, strict=True)
               if (c.kind, c.layer) == ("head", layer)}  # fmt: skip
        assert list(own) == list(range(model.cfg.n_heads))
        assert off(np.stack(list(own.values())), heads) <= BOUND
        whole = [v for c, v in zip(found.components, found.values, strict=True)
                 if c.layer == layer and c.kind in ("head", "attn bias")]  # fmt: skip
        assert off(np.sum(whole, axis=0), golden.expected(f"blocks.{layer}.hook_attn_out")[0]) <= (
            BOUND
        )


def test_neurons_sum_to_their_mlp(golden: GoldenCase, model: Model) -> None:
    if "blocks.0.mlp.hook_post" not in golden.hooks:
        with pytest.raises(HookError, match=r"at\.post.*experts"):
            residual_decomposition(model, golden.tokens[0], neurons=[0])
        return
    found = residual_decomposition(model, golden.tokens[0], positions=None, neurons=[0])
    neurons = [c for c in found.components if c.kind == "neuron"]
    assert neurons == [Component("neuron", 0, n) for n in range(model.cfg.d_mlp)]
    assert Component("mlp", 0) not in found.components
    assert Component("mlp", 1) in found.components
    whole = [v for c, v in zip(found.components, found.values, strict=True)
             if c.layer == 0 and c.kind in ("neuron", "mlp bias")]  # fmt: skip
    assert off(np.sum(whole, axis=0), golden.expected("blocks.0.hook_mlp_out")[0]) <= BOUND
    layer = model.cfg.layers[0]
    if isinstance(layer, Layer) and layer.ln2_post is None:
        post = golden.expected("blocks.0.mlp.hook_post")[0]
        one = post[:, 3, None] * model.W_out[0][3]
        place = found.components.index(Component("neuron", 0, 3))
        assert off(found.values[place], one) <= BOUND


@pytest.mark.parametrize("case", ["llama2", "gpt2", "rwkv7"])
def test_every_array_library(backend: Backend, load: Load, case: str) -> None:
    model = load(case, backend, "float32")
    found = residual_decomposition(model, [3, 1, 4], positions=None)
    run = model.run([3, 1, 4], capture=[at.resid_post[-1]])
    whole = model.backend.to_host(run[at.resid_post[-1]])[0]
    host = model.backend.to_host
    assert off(host(found.values).sum(axis=0), whole) <= 5e-6
    assert off(host(found.accumulated())[-1], whole) <= 5e-6


def test_parts_that_miss_their_whole_are_refused(tiny: Model) -> None:
    parts = np.ones((3, 2), dtype=np.float32)
    check_sum(parts, np.full(2, 3.0, dtype=np.float32), "a test", tiny)
    with pytest.raises(MiRefError, match=r"parts of a test miss it by 9\.99e-05.*defect of mi_ref"):
        check_sum(parts, np.full(2, 3.0001, dtype=np.float32), "a test", tiny)
    with pytest.raises(MiRefError, match="nan"):
        check_sum(parts, np.full(2, np.nan, dtype=np.float32), "a test", tiny)


def test_refusals(tiny: Model) -> None:
    with pytest.raises(ShapeError, match="one prompt is needed, not 2"):
        residual_decomposition(tiny, [[1, 2], [3, 4]])
    with pytest.raises(ShapeError, match=r"positions \[3\] of 3"):
        residual_decomposition(tiny, [1, 2, 3], positions=3)
    with pytest.raises(ShapeError, match=r"neurons=\[7\]: this model's layers are 0 to"):
        residual_decomposition(tiny, [1, 2, 3], neurons=[7])


def test_table_record_and_picture(atlas: Model, tmp_path: Path) -> None:
    found = residual_decomposition(atlas, PROMPT, positions=None)
    lines = str(found).splitlines()
    assert "position 5, ' is'" in lines[0]
    assert lines[-1].split()[:2] == ["mlp", "5"]
    assert f"{found.shares[-1][-1]:+.3f}" in lines[-1]
    found.save(tmp_path / "found.json")
    record = json.loads((tmp_path / "found.json").read_text("utf-8"))
    assert record["format"] == "mi_ref.residual_decomposition/1"
    assert record["components"][:2] == ["embed", "attn 0"]
    assert record["shares"] == [list(row) for row in found.shares]
    assert record["str_tokens"][-1] == " is"
    found.plot(tmp_path / "found.png")
    assert (tmp_path / "found.png").read_bytes()[:4] == b"\x89PNG"
