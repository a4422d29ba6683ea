"""Inspecting checkpoints: what they are, and every reason to refuse them, from headers alone."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import mi_ref
from mi_ref import ConfigError, HubError, WeightError
from mi_ref.checkpoints.check import TensorFault
from mi_ref.checkpoints.inspect import Inspection, inspect_checkpoint
from mi_ref.checkpoints.nearest import collapse
from mi_ref.checkpoints.safetensors import Weights

CASES = sorted(
    path.parent for path in Path(__file__).parents[2].glob("golden/data/*/manifest.json")
)
DOWN = "model.layers.0.mlp.down_proj.weight"


@pytest.fixture
def folder(repository: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, float32, to break."""
    for file in ("config.json", "model.safetensors"):
        shutil.copy(repository / "golden/data/llama2" / file, tmp_path)
    source = Weights([tmp_path / "model.safetensors"])
    tensors = {name: source.load(name, "float32") for name in source.info}
    save_file(tensors, tmp_path / "model.safetensors")
    return tmp_path


def change(folder: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Inspection:
    """Change config keys and tensors, None to drop one, and look."""
    raw = json.loads((folder / "config.json").read_text()) | config
    (folder / "config.json").write_text(json.dumps(raw))
    path = folder / "model.safetensors"
    held = {**load_file(path), **(tensors or {})}
    save_file({name: x for name, x in held.items() if x is not None}, path)
    return inspect_checkpoint(folder)


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.name)
def test_golden_models_are_told_to_load(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> NoReturn:
        raise AssertionError("weights were read")

    with monkeypatch.context() as patched:
        patched.setattr(Weights, "load", refuse)
        found = inspect_checkpoint(case)
    assert found.refusals == ()
    assert found.config == mi_ref.from_pretrained(case).cfg
    record = found.record()
    assert record["loads"] is True
    assert record["stored_bytes"] == {"BF16": 2 * found.n_params}
    assert record["memory_bytes"]["float64"] == 8 * found.n_params
    assert "token ids only" in str(found)


def test_atlas_is_described() -> None:
    text = " ".join(str(inspect_checkpoint("atlas")).split())
    for words in ("6, d_model 128", "8 query heads, 4 key and value heads", "window none",
                  "default: dims 16, theta 10000.0", "tied to the embedding", "BPE, 2,432 tokens",
                  "'<|bos|>' added before a text", "yes, as far as headers show"):  # fmt: skip
        assert words in text
    sizes = inspect_checkpoint("atlas").record()["sizes"]
    assert sizes["rotary"] == [{"kind": "default", "dims": 16, "theta": 10000.0}] * 6
    assert sizes["windows"] == [None] * 6


def test_rotary_numbers_and_biases_are_told(repository: Path) -> None:
    text = str(inspect_checkpoint(repository / "golden/data/llama3.1-rope"))
    assert "llama3: dims 16, theta" in text
    assert "low_freq_factor" in text
    sizes = inspect_checkpoint(repository / "golden/data/llama-biases").record()["sizes"]
    assert sizes["biases"] == {"qkv": True, "attn_out": True, "unembed": False}
    assert [mlp["bias"] for mlp in sizes["mlp"]] == [True, True]


def test_all_faults_of_a_checkpoint_at_once(folder: Path) -> None:
    extra = {f"model.layers.{n}.self_attn.q_norm.weight": np.ones(6, np.float32) for n in (0, 1)}
    wrong: dict[str, Any] = {DOWN: np.ones((3, 4), np.float32), "model.norm.weight": None}
    found = change(
        folder, wrong | extra, hidden_act="softplus", rms_norm_eps=-1.0,
        sliding_window=4096, attn_logit_softcapping=50.0,
    )  # fmt: skip
    text = " ".join(str(found).split())
    for words in (
        "hidden_act: expected one of 'silu', 'swish',",
        "'sqrelu', got 'softplus'",
        "rms_norm_eps: expected a number above 0, got -1.0",
        "llama does not read sliding_window=4096, attn_logit_softcapping=50.0",
        "model.layers.0.mlp.down_proj.weight has shape (3, 4); the config requires (24, 20)",
        "model.norm.weight is missing",
        "model.layers.{layer}.self_attn.q_norm.weight (6,) is not used",
        "(layers 0, 1)",
    ):
        assert words in text, words
    assert found.config is None
    assert f"refused 1/{len(found.refusals)}" in text
    with pytest.raises(ConfigError):
        mi_ref.from_pretrained(folder)


def test_stored_dtypes_that_cannot_be_read(folder: Path) -> None:
    found = change(folder, {DOWN: np.ones((24, 20), np.int8)})
    (reason,) = found.refusals
    assert reason.startswith(f"{DOWN} is stored as I8; expected F64, F32, F16, BF16")
    assert found.stored["I8"] == (480, 480)
    with pytest.raises(WeightError, match="I8"):
        mi_ref.from_pretrained(folder)


def test_truncated_weights_are_told_with_the_config_faults(folder: Path) -> None:
    change(folder, sliding_window=8)
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    damage, config = inspect_checkpoint(folder).refusals
    assert "is truncated" in damage
    assert "sliding_window=8" in config


def test_unknown_family_names_the_nearest_and_what_differs(folder: Path) -> None:
    norms = {f"model.layers.{n}.self_attn.q_norm.weight": np.ones(6, np.float32) for n in (0, 1)}
    found = change(folder, norms, model_type="qwen9", use_sliding_window=False)
    text = " ".join(str(found).split())
    with pytest.raises(ConfigError) as error:
        mi_ref.from_pretrained(folder)
    for said in (text, str(error.value)):
        assert "model_type 'qwen9' is not supported (supported: llama" in said
        assert "llama does not read use_sliding_window=False" in said
        assert said.count("self_attn.q_norm.weight") == 1
        assert "tensors not used: model.layers.{layer}.(self_attn" in said
    assert "nearest is llama" in str(error.value)
    assert found.record()["sizes"] is None


def test_absent_model_type(folder: Path) -> None:
    assert "an absent model_type is not supported" in change(folder, model_type=None).refusals[0]


def test_record_is_saved_as_json(tmp_path: Path) -> None:
    found = inspect_checkpoint("atlas")
    found.save(tmp_path / "atlas.json")
    assert json.loads((tmp_path / "atlas.json").read_text(encoding="utf-8")) == found.record()


def test_unreadable_tokenizers_do_not_refuse_a_model(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    found = inspect_checkpoint(folder)
    assert found.refusals == ()
    assert found.tokenizer.problem is not None
    assert "is not a tokenizer" in str(found.tokenizer.problem)


def test_nothing_to_inspect(tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"lacks config\.json"):
        inspect_checkpoint(tmp_path)


def test_collapse_keeps_what_differs_apart() -> None:
    faults = [TensorFault("missing", f"h.{n}.w", "is missing") for n in (0, 1, 2, 5)]
    faults += [TensorFault("missing", "h.7.b", "is missing"), TensorFault("unused", "x", "is odd")]
    assert list(map(str, collapse(faults))) == [
        "h.{layer}.w is missing (layers 0, 1, 2, 5)",
        "h.7.b is missing",
        "x is odd",
    ]
