"""Weight files of every family: old and fused tensors, names that fit, names that do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Model, WeightError, get_backend
from mi_ref.checkpoints.read_recurrent import recurrent_modules
from mi_ref.config.decoder import Layer
from mi_ref.families import FAMILIES
from mi_ref.families.reading.weight_names import modules_of
from tests.fixtures.family_configs import parse
from tests.fixtures.golden_copies import Altered

Load = Callable[..., Model]


@pytest.mark.bits
@pytest.mark.parametrize(
    ("case", "prefix", "masks"),
    [
        ("gpt2", "transformer.", ["h.0.attn.bias", "h.1.attn.bias", "h.0.attn.masked_bias"]),
        ("gpt-neox-parallel", "gpt_neox.",
         ["layers.0.attention.bias", "layers.1.attention.rotary_emb.inv_freq"]),
    ],
)  # fmt: skip
def test_files_of_the_bare_model_and_old_masks(
    case: str, prefix: str, masks: list[str], load: Load, altered: Altered
) -> None:
    def bare(tensors: dict[str, Any]) -> dict[str, Any]:
        short = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        assert short.keys() != tensors.keys()
        return short | {mask: np.ones((1, 1, 4, 4), np.float32) for mask in masks}

    whole = load(case, get_backend("numpy"), "float32").run([1, 2, 3]).logits
    found = mi_ref.from_pretrained(altered(case, bare)).run([1, 2, 3]).logits
    assert whole is not None
    assert found is not None
    assert np.array_equal(found, whole)


# Of each family that joins modules in one tensor: one that is joined, and one of another family.
FUSED = [
    ("gpt2", "transformer.h.1.attn.c_attn.bias", "transformer.h.0.attn.q_proj.weight"),
    ("gpt2", "transformer.h.0.attn.c_attn.weight", "transformer.h.0.attn.c_attn.scale"),
    ("gpt-neox-parallel", "gpt_neox.layers.1.attention.query_key_value.bias",
     "gpt_neox.layers.0.attention.query.weight"),
    ("gpt-neox-parallel", "gpt_neox.layers.0.mlp.dense_h_to_4h.bias",
     "gpt_neox.layers.0.attention.dense.scale"),
    ("phi3-window", "model.layers.1.self_attn.qkv_proj.weight",
     "model.layers.0.self_attn.qkv_proj.bias"),
    ("phi3-window", "model.layers.0.mlp.gate_up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
    ("phi", "lm_head.bias", "model.layers.0.post_attention_layernorm.weight"),
    ("starcoder2", "model.layers.1.mlp.c_proj.bias", "model.layers.0.mlp.gate_proj.weight"),
    ("mixtral", None, "model.layers.0.self_attn.q_proj.bias"),
    ("qwen2", "model.layers.1.self_attn.k_proj.bias", "model.layers.0.self_attn.o_proj.bias"),
]  # fmt: skip


@pytest.mark.parametrize(("case", "missing", "unused"), FUSED)
def test_tensors_that_do_not_fit_are_named(
    case: str, missing: str | None, unused: str, altered: Altered
) -> None:
    def spoil(tensors: dict[str, Any]) -> dict[str, Any]:
        if missing is not None:
            del tensors[missing]
        return tensors | {unused: np.zeros(3, np.float32)}

    with pytest.raises(WeightError) as refusal:
        mi_ref.from_pretrained(altered(case, spoil))
    assert f"{unused} (3,) is not used by this architecture" in str(refusal.value)
    if missing is not None:
        assert f"{missing} is missing: expected (" in str(refusal.value)


def test_a_fused_tensor_of_another_width_is_explained(altered: Altered) -> None:
    name = "model.layers.0.mlp.gate_up_proj.weight"

    def halve(tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors | {name: tensors[name][:20]}

    with pytest.raises(
        WeightError, match=r"gate_up_proj\.weight has shape \(20, \d+\).*requires \(40, "
    ):
        mi_ref.from_pretrained(altered("phi3-window", halve))


def slots(family: str, **keys: Any) -> set[str]:
    """Return the slots of all modules and parameters that a config asks for."""
    cfg = parse(family, **keys)
    return {
        module.slot
        for layer in cfg.layers
        for module in (
            modules_of(layer, cfg.d_model)
            if isinstance(layer, Layer)
            else recurrent_modules(layer, cfg.d_model)
        )
    }


def test_names_are_of_modules_that_there_are() -> None:
    every = set().union(*map(slots, FAMILIES))
    layouts = [(family, entry.weight_names) for family, entry in FAMILIES.items()]
    layouts += [(family, other) for family, names in layouts for other in names.others]
    for family, names in layouts:
        joined = [slot for fused in names.fused for slot in fused.slots]
        named = [*names.modules, *names.stored, *joined]
        assert set(named) <= every, family
        assert slots(family) <= set(named), family
        assert len(set(joined)) == len(joined), family
        paths = [names.path(slot, 3, 5) for slot in names.modules if slot not in joined]
        places = [(stored.path, stored.index) for stored in names.stored.values()]
        for each in (paths, places):
            assert len(set(each)) == len(each), family
    assert {"q_norm", "k_norm"} <= slots("phi", qk_layernorm=True)
    assert {"q_norm", "k_norm"} <= set(FAMILIES["phi"].weight_names.modules)
