"""What the names and shapes of BlinkDL's files determine: places, config and faults."""

from __future__ import annotations

import re

import pytest

from mi_ref.errors import WeightError
from tests.fixtures.blinkdl_files import (
    FILES,
    LAYERS,
    C,
    F,
    H,
    N,
    V,
    names,
    plan,
    refusal,
    x060,
    x070,
)


@pytest.mark.parametrize("version", FILES)
def test_every_tensor_goes_to_a_place_of_its_own(version: int) -> None:
    shapes = FILES[version]()
    found = plan(shapes)
    assert set(names(found)) == set(shapes)
    assert len(set(names(found).values())) == len(shapes)


def test_names_of_rwkv_6() -> None:
    found = names(plan(x060()))
    layer = {old: new for old, new in found.items() if old.startswith("blocks.1.")}
    # That layout keeps everything below `attention` and `feed_forward` as it is.
    assert layer == {
        old: old.replace("blocks", "rwkv.blocks").replace("att.", "attention.").replace(
            "ffn.", "feed_forward."
        )
        for old in layer
    }  # fmt: skip
    assert {old: new for old, new in found.items() if "blocks.1." not in old} == {
        "emb.weight": "rwkv.embeddings.weight",
        "ln_out.weight": "rwkv.ln_out.weight",
        "ln_out.bias": "rwkv.ln_out.bias",
        "head.weight": "head.weight",
        "blocks.0.ln0.weight": "rwkv.blocks.0.pre_ln.weight",
        "blocks.0.ln0.bias": "rwkv.blocks.0.pre_ln.bias",
        **{
            old.replace("blocks.1", "blocks.0"): new.replace("blocks.1", "blocks.0")
            for old, new in layer.items()
        },
    }


RWKV_7_LAYER = {
    "ln1.weight": "attn_norm.weight", "ln1.bias": "attn_norm.bias",
    "ln2.weight": "ffn_norm.weight", "ln2.bias": "ffn_norm.bias",
    "att.x_r": "attn.x_r", "att.x_w": "attn.x_w", "att.x_k": "attn.x_k",
    "att.x_v": "attn.x_v", "att.x_a": "attn.x_a", "att.x_g": "attn.x_g",
    "att.w0": "attn.w_lora.lora.2.bias",
    "att.w1": "attn.w_lora.lora.0.weight", "att.w2": "attn.w_lora.lora.2.weight",
    "att.a0": "attn.a_lora.lora.2.bias",
    "att.a1": "attn.a_lora.lora.0.weight", "att.a2": "attn.a_lora.lora.2.weight",
    "att.v0": "attn.v_lora.lora.2.bias",
    "att.v1": "attn.v_lora.lora.0.weight", "att.v2": "attn.v_lora.lora.2.weight",
    "att.g1": "attn.g_lora.lora.0.weight", "att.g2": "attn.g_lora.lora.2.weight",
    "att.k_k": "attn.k_k", "att.k_a": "attn.k_a", "att.r_k": "attn.r_k",
    "att.receptance.weight": "attn.r_proj.weight", "att.key.weight": "attn.k_proj.weight",
    "att.value.weight": "attn.v_proj.weight", "att.output.weight": "attn.o_proj.weight",
    "att.ln_x.weight": "attn.g_norm.weight", "att.ln_x.bias": "attn.g_norm.bias",
    "ffn.x_k": "ffn.x_k", "ffn.key.weight": "ffn.key.weight",
    "ffn.value.weight": "ffn.value.weight",
}  # fmt: skip


def test_names_of_rwkv_7() -> None:
    residual = {f"att.v{number}" for number in range(3)}
    assert names(plan(x070())) == {
        "emb.weight": "model.embeddings.weight",
        "blocks.0.ln0.weight": "model.layers.0.pre_norm.weight",
        "blocks.0.ln0.bias": "model.layers.0.pre_norm.bias",
        "ln_out.weight": "model.norm.weight",
        "ln_out.bias": "model.norm.bias",
        "head.weight": "lm_head.weight",
        **{
            f"blocks.{layer}.{old}": f"model.layers.{layer}.{new}"
            for layer in range(LAYERS)
            for old, new in RWKV_7_LAYER.items()
            if layer or old not in residual
        },
    }


@pytest.mark.parametrize("version", FILES)
def test_shapes_of_the_folder(version: int) -> None:
    shapes, found = FILES[version](), plan(FILES[version]())
    for move in found.moves:
        old, new = shapes[move.old], found.shape(move)
        if re.search(r"att\.[wavg][12]$", move.old):
            assert (new, move.transposed) == (old[::-1], True)
        elif version == 7 and re.search(r"att\.([wav]0|k_k|k_a)$|ffn\.x_k", move.old):
            assert (new, move.transposed) == ((C,), False)
        else:
            assert (new, move.transposed) == (old, False)


@pytest.mark.parametrize("version", FILES)
def test_vectors_may_be_stored_flat(version: int) -> None:
    flat = {name: (C,) if shape == (1, 1, C) else shape for name, shape in FILES[version]().items()}
    found, as_usual = plan(flat), plan(FILES[version]())
    assert [found.shape(move) for move in found.moves] == [
        as_usual.shape(move) for move in as_usual.moves
    ]


def test_config_of_rwkv_6() -> None:
    assert plan(x060()).config == {
        "architectures": ["Rwkv6ForCausalLM"], "model_type": "rwkv6", "vocab_size": V,
        "hidden_size": C, "attention_hidden_size": C, "num_hidden_layers": LAYERS,
        "num_attention_heads": N, "head_size": N, "head_size_divisor": 8,
        "intermediate_size": F, "layer_norm_epsilon": 1e-5, "rescale_every": 6,
        "tie_word_embeddings": False,
    }  # fmt: skip


def test_config_of_rwkv_7() -> None:
    assert plan(x070()).config == {
        "architectures": ["RWKV7ForCausalLM"], "model_type": "rwkv7", "vocab_size": V,
        "hidden_size": C, "num_hidden_layers": LAYERS, "head_dim": N, "num_heads": H,
        "intermediate_size": F, "hidden_act": "sqrelu", "decay_low_rank_dim": 4,
        "gate_low_rank_dim": 8, "a_low_rank_dim": 5, "v_low_rank_dim": 7, "norm_first": True,
        "norm_bias": True, "norm_eps": 1e-5, "group_norm_eps": 64e-5,
        "tie_word_embeddings": False,
    }  # fmt: skip


def test_rwkv_7_without_its_first_norm() -> None:
    shapes = {name: shape for name, shape in x070().items() if ".ln0." not in name}
    found = plan(shapes)
    assert found.config["norm_first"] is False
    assert set(names(found)) == set(shapes)


def test_rwkv_7_in_one_layer_has_no_value_residual() -> None:
    shapes = {name: shape for name, shape in x070().items() if "blocks.1." not in name}
    found = plan(shapes).config
    assert found["num_hidden_layers"] == 1
    assert "v_low_rank_dim" not in found


def test_the_first_layers_unread_value_residual_is_dropped() -> None:
    unread = {f"blocks.0.att.v{number}": (C, 9) for number in range(3)}
    assert names(plan(x070() | unread)) == names(plan(x070()))
    assert "blocks.0.att.v1" in refusal(x060() | unread)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        (
            ["time_mix_k", "time_decay", "time_first"],
            "model.pth: expected RWKV-6 (x060) or RWKV-7 (x070), got RWKV-4.",
        ),
        (
            ["time_mix_k", "time_decay", "ln_x.weight"],
            "model.pth: expected RWKV-6 (x060) or RWKV-7 (x070), got RWKV-5.",
        ),
        (["time_mix_k", "time_decay", "ln_x.weight", "gate.weight"], ", got RWKV-5.1 or 5.2."),
        (["qkv.weight"], ", got blocks.0.att.qkv.weight. Pass the .pth"),
        ([], ", got no tensors."),
    ],
)
def test_other_versions_are_refused_by_name(held: list[str], said: str) -> None:
    refused = refusal({f"blocks.0.att.{name}": (C,) for name in held})
    assert refused.startswith("model.pth: expected ")
    assert "RWKV-6" in refused
    assert said in refused


@pytest.mark.parametrize("version", FILES)
def test_all_faults_are_listed_at_once(version: int) -> None:
    shapes = FILES[version]()
    del shapes["ln_out.bias"]
    del shapes["blocks.1.att.key.weight"]
    shapes |= {"head.weight": (V, C + 1), "blocks.1.ffn.s_emb.weight": (V, 2)}
    said = refusal(shapes)
    assert f"model.pth is not a plain RWKV-{version} (x0{version}0):\n" in said
    assert "\n  ln_out.bias is missing\n" in said
    assert "\n  blocks.1.att.key.weight is missing\n" in said
    assert "\n  head.weight has shape (11, 7); expected [d_vocab 11, d_model 6]\n" in said
    assert "\n  blocks.1.ffn.s_emb.weight (11, 2) is not used by this architecture\n" in said


@pytest.mark.parametrize("version", FILES)
def test_no_tensor_can_be_left_out_or_cut_short(version: int) -> None:
    shapes = FILES[version]()
    for name, shape in shapes.items():
        without = {other: shapes[other] for other in shapes if other != name}
        if ".att." not in name or ".1." in name:
            assert f"{name} is missing" in refusal(without)
        else:  # the first layer's attention also tells the version
            refusal(without)
        with pytest.raises(WeightError):
            plan(shapes | {name: (*shape[:-1], shape[-1] - 1)})


def test_layers_are_counted_not_believed() -> None:
    said = refusal(x070() | {"blocks.99999999999.ffn.x_k": (C,)})
    assert "blocks.2.ln1.weight is missing" in said
    assert "and 22 more" in said  # of the third layer's 33 tensors and the one that is not used


def test_sizes_that_contradict_each_other() -> None:
    heads = {f"blocks.{layer}.att.r_k": (H, N + 1) for layer in range(LAYERS)}
    assert "d_model is 6, but other tensors make it 2 × 4" in refusal(x070() | heads)
    mixes = {f"blocks.{layer}.att.time_maa_w2": (5, 3, C) for layer in range(LAYERS)}
    assert "5 × d_shift is 20, but other tensors make it 5 × 3" in refusal(x060() | mixes)
    empty = {f"blocks.{layer}.att.g{part}": (C, 0)[:: 3 - 2 * part]
             for layer in range(LAYERS) for part in (1, 2)}  # fmt: skip
    assert "att.g1 has shape (6, 0); expected [d_model 6, d_gate]" in refusal(x070() | empty)


def test_quantised_tensors_are_refused() -> None:
    said = refusal(x070(), "torch.int8")
    assert "emb.weight is stored as torch.int8; expected F64, F32, F16, BF16" in said
