"""Every architecture that GGUF has, against the safetensors that the file was made from."""

from __future__ import annotations

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file

import mi_ref
from mi_ref import Model
from mi_ref.checkpoints.find import find_checkpoint
from mi_ref.checkpoints.inspect import inspect_checkpoint
from mi_ref.checkpoints.recognise import open_weights
from mi_ref.config.decoder import Layer, Reading
from mi_ref.load import reload
from tests.fixtures.gguf_files import convert, make, read_folder, write

GOLDEN = Path(__file__).parents[3] / "golden/data"
# Left out: what llama.cpp's converter cannot express, such as dynamic scaling, GPT-2's scaling by
# layer, YaRN's mscale, other activation functions, and windows or experts in some layers only.
EXACT = (
    "gpt-neox-parallel", "gpt2", "llama-head-dim", "llama-tied", "llama1", "llama2", "llama3",
    "llama-yarn", "mistral-window", "mixtral", "olmo2", "phi", "phi-qk-norm", "phi3-longrope-long",
    "phi3-longrope-short", "phi3-window", "phi4-mini", "qwen2", "qwen3", "starcoder2",
    "starcoder2-window",
)  # fmt: skip
# Adding one to a norm and taking it away again rounds.
ROUNDED = ("gemma", "gemma2", "gemma3")
RENAMED = {"mistral-nemo": "llama"}
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]


def both(case: str, path: Path) -> tuple[Model, Model]:
    made = make(GOLDEN / case, path)
    return mi_ref.from_pretrained(GOLDEN / case), mi_ref.from_pretrained(str(made))


def hooks(model: Model) -> dict[str, Any]:
    names = [str(entry.point) for entry in model.hook_points]
    run = model.run(TOKENS, capture=names)
    return {name: np.asarray(run[name]) for name in names}


@pytest.mark.parametrize("case", [*EXACT, *ROUNDED, *RENAMED])
def test_a_file_gives_the_model_it_was_made_from(case: str, tmp_path: Path) -> None:
    original, loaded = both(case, tmp_path / "model.gguf")
    assert loaded.cfg.inferred
    model_type = RENAMED.get(case, original.cfg.model_type)
    assert replace(loaded.cfg, reading=Reading()) == replace(
        original.cfg, reading=Reading(), model_type=model_type
    )
    expected, found = (np.asarray(model.run(TOKENS).logits) for model in (original, loaded))
    if case in ROUNDED:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("case", [*EXACT, *ROUNDED, *RENAMED])
def test_tensors_are_those_of_the_original(case: str, tmp_path: Path) -> None:
    config, expected = read_folder(GOLDEN / case)
    path = write(tmp_path / "model.gguf", *convert(config, expected))
    weights = open_weights(find_checkpoint(path))
    assert set(weights.info) == set(expected)
    for name, x in expected.items():
        found = weights.load(name, "float64")
        assert found.dtype == np.float64
        assert weights.info[name].shape == found.shape == x.shape
        bound = 1e-7 if case in ROUNDED and "norm" in name else 0
        np.testing.assert_allclose(found, x, rtol=0, atol=bound)
        assert not found.flags.writeable


def test_a_factor_for_each_frequency(tmp_path: Path) -> None:
    """Llama 3.1's scaling by other parameters than Meta's: the factors themselves are used."""
    original, loaded = both("llama3.1-rope", tmp_path / "model.gguf")
    found, expected = (np.asarray(model.run(TOKENS).logits) for model in (loaded, original))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_llama_3_scaling_is_recognised_by_its_factors(tmp_path: Path) -> None:
    config, tensors = read_folder(GOLDEN / "llama3.1-rope")
    config["rope_parameters"] |= {"original_max_position_embeddings": 8192, "rope_theta": 5e5}
    path = write(tmp_path / "model.gguf", *convert(config, tensors))
    raw = find_checkpoint(path).gguf.config.raw  # type: ignore[union-attr]
    assert raw["rope_scaling"] == {
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }  # fmt: skip


def test_a_linear_map_of_positions(tmp_path: Path) -> None:
    config, tensors = read_folder(GOLDEN / "llama-linear")
    path = write(tmp_path / "model.gguf", *convert(config, tensors))
    (layer, *_) = mi_ref.from_pretrained(path).cfg.layers
    (other, *_) = mi_ref.from_pretrained(GOLDEN / "llama-linear").cfg.layers
    assert isinstance(layer, Layer)
    assert isinstance(other, Layer)
    assert layer.attn.rotary == other.attn.rotary


def test_experts_are_unstacked(tmp_path: Path) -> None:
    """GGUF has no dense layers in a Qwen3-MoE; only the first layer of this model has experts."""
    config, tensors = read_folder(GOLDEN / "qwen3-moe")
    config |= {"num_hidden_layers": 1, "mlp_only_layers": []}
    kept = {name: x for name, x in tensors.items() if not re.search(r"layers\.[12]", name)}
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(kept, tmp_path / "model.safetensors")
    path = write(tmp_path / "model.gguf", *convert(config, kept))
    original, loaded = mi_ref.from_pretrained(tmp_path), mi_ref.from_pretrained(path)
    np.testing.assert_array_equal(loaded.run(TOKENS).logits, original.run(TOKENS).logits)


@pytest.mark.parametrize("name", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "MXFP4"])
def test_stored_types_decode_as_the_package_says(name: str, tmp_path: Path) -> None:
    metadata, tensors = _wide_llama()
    kind = gguf.GGMLQuantizationType[name]
    mats = {key: kind for key, x in tensors.items() if x.ndim == 2}
    path = write(tmp_path / "model.gguf", metadata, tensors, kinds=mats)
    weights = open_weights(find_checkpoint(path))
    for stored, ours in (
        ("token_embd.weight", "model.embed_tokens.weight"),
        ("blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight"),
    ):
        packed = gguf.quants.quantize(tensors[stored], kind)
        expected = gguf.quants.dequantize(packed, kind).astype(np.float32)
        for dtype in ("float32", "float64"):
            np.testing.assert_array_equal(weights.load(ours, dtype), expected)
    model = mi_ref.from_pretrained(path)
    assert np.isfinite(np.asarray(model.run(TOKENS).logits)).all()
    found = inspect_checkpoint(path)
    assert found.refusals == ()
    block, size = gguf.GGML_QUANT_SIZES[kind]
    count = sum(tensors[key].size for key in mats)
    assert found.stored[name] == (count, count // block * size)


def test_a_large_tensor_is_decoded_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metadata, tensors = _wide_llama()
    kinds = {"token_embd.weight": gguf.GGMLQuantizationType.Q8_0}
    path = write(tmp_path / "model.gguf", metadata, tensors, kinds=kinds)
    whole = open_weights(find_checkpoint(path)).load("model.embed_tokens.weight", "float32")
    monkeypatch.setattr("mi_ref.checkpoints.gguf.weights._AT_ONCE", 96)
    parts = open_weights(find_checkpoint(path)).load("model.embed_tokens.weight", "float32")
    np.testing.assert_array_equal(parts, whole)


def _wide_llama() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a Llama whose rows are whole blocks of every small type."""
    config, tensors = read_folder(GOLDEN / "llama2")
    config |= {"hidden_size": 64, "intermediate_size": 96, "head_dim": 32,
               "num_attention_heads": 2, "num_key_value_heads": 1}  # fmt: skip
    rng = np.random.default_rng(0)
    sizes = {24: 64, 20: 96, 12: 32}
    wide = {
        name: rng.normal(size=[sizes.get(size, size) for size in x.shape]).astype(np.float32)
        for name, x in tensors.items()
    }
    return convert(config, wide)


def test_every_hook_agrees(tmp_path: Path) -> None:
    original, loaded = both("gpt-neox-parallel", tmp_path / "model.gguf")
    expected, found = hooks(original), hooks(loaded)
    assert set(expected) == set(found)
    for key, x in expected.items():
        np.testing.assert_array_equal(found[key], x)


def test_a_model_is_pickled_by_its_file(tmp_path: Path) -> None:
    make(GOLDEN / "llama2", tmp_path / "a.gguf")
    make(GOLDEN / "llama3", tmp_path / "b.gguf")
    model = mi_ref.from_pretrained(tmp_path, filename="b.gguf")
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.run(TOKENS).logits, model.run(TOKENS).logits)
    (tmp_path / "b.gguf").write_bytes((tmp_path / "a.gguf").read_bytes())
    reload.cache_clear()
    with pytest.raises(mi_ref.WeightError, match="that name leads to"):
        pickle.loads(pickle.dumps(model))


def test_what_is_inferred_is_said(tmp_path: Path) -> None:
    path = make(GOLDEN / "gemma2", tmp_path / "model.gguf")
    inferred = mi_ref.from_pretrained(path).cfg.inferred
    assert "activation gelu_pytorch_tanh, as in all gemma2 models" in inferred
    assert inspect_checkpoint(path).config == mi_ref.from_pretrained(path).cfg
    assert inferred == mi_ref.from_pretrained(path).origin.inferred
