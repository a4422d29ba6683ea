"""Models of unknown type: loaded if their files are unambiguous, otherwise refused with reasons."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mi_ref
from mi_ref import ConfigError
from mi_ref.config.decoder import Reading
from mi_ref.families import FAMILIES
from mi_ref.testing import GoldenCase, golden_errors

READABLE = ("llama2", "llama3.1-rope", "llama-biases", "llama-tied", "mistral-window",
            "qwen2-window", "qwen3-window", "phi3-window", "phi4-mini", "starcoder2",
            "olmo2")  # fmt: skip


def disguised(case: Path, folder: Path, model_type: str = "acme", **changes: Any) -> Path:
    """Copy a golden model, under another ``model_type``."""
    raw = json.loads((case / "config.json").read_text("utf-8"))
    raw |= {"model_type": model_type} | changes
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    shutil.copy(case / "model.safetensors", folder)
    return folder


@pytest.mark.parametrize("name", READABLE)
def test_an_unknown_type_is_read_as_its_own_family_reads_it(
    name: str, repository: Path, tmp_path: Path
) -> None:
    case = GoldenCase(repository / "golden" / "data" / name)
    with pytest.warns(UserWarning, match="Inferred, not known") as warned:
        found = mi_ref.from_pretrained(disguised(case.folder, tmp_path), dtype="float64")
    known = mi_ref.from_pretrained(case.folder)
    assert replace(found.cfg, reading=Reading(), model_type=known.cfg.model_type) == known.cfg
    assert max(golden_errors(found, case).values()) <= 1e-12
    assert all(sentence in str(warned[0].message) for sentence in found.cfg.inferred)
    assert any("assumed" in sentence for sentence in found.cfg.inferred)


def test_what_was_inferred_is_recorded(repository: Path, tmp_path: Path) -> None:
    folder = disguised(repository / "golden" / "data" / "llama2", tmp_path)
    seen = mi_ref.inspect_checkpoint(folder)
    assert seen.supported
    assert not seen.refusals
    assert "assumed, since no file shows it" in " ".join(str(seen.table()).split())
    with pytest.warns(UserWarning, match="acme"):
        model = mi_ref.from_pretrained(folder)
    assert model.origin.record()["inferred"] == list(model.cfg.inferred)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama2", {"logit_scale": 0.5}, "logit_scale=0.5"),
        ("llama2", {"rope_parameters": {"rope_type": "default"}}, "The nearest is"),
        ("llama2", {"rms_norm_eps": None}, "The nearest is"),
        ("llama2", {"hidden_act": None}, "The nearest is"),
        ("llama2", {"hidden_activation": "gelu"}, "hidden_activation"),
        ("llama2", {"num_attention_heads": 8}, "The nearest is"),
        ("llama2", {"model_type": "helium"}, "model_type 'helium' is not supported"),
        ("llama2", {"model_type": "helium"}, "it rotates interleaved pairs, which no file shows"),
        ("llama2", {"model_type": "gemma7"}, "model_type 'gemma7' is not supported"),
        ("gemma2", {}, "The nearest is gemma2"),
        ("gpt2", {}, "The nearest is gpt2"),
        ("mixtral", {}, "The nearest is mixtral"),
    ],
)
def test_any_doubt_refuses(
    name: str, changes: dict[str, Any], message: str, repository: Path, tmp_path: Path
) -> None:
    folder = disguised(repository / "golden" / "data" / name, tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as refused:
        mi_ref.from_pretrained(folder)
    assert all(family in str(refused.value) for family in FAMILIES)
    assert mi_ref.inspect_checkpoint(folder).refusals


def test_gemma_in_disguise_is_refused(repository: Path, tmp_path: Path) -> None:
    case = repository / "golden" / "data" / "gemma"
    raw = json.loads((case / "config_hub.json").read_text("utf-8")) | {"model_type": "acme"}
    (tmp_path / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    shutil.copy(case / "model.safetensors", tmp_path)
    with pytest.raises(ConfigError, match="model_type 'acme' is not supported"):
        mi_ref.from_pretrained(tmp_path)
