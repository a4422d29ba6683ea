"""Every family: HuggingFace's defaults, what its config and weights may not say, what it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import mi_ref
from mi_ref import ConfigError, HookError, Model, WeightError, at, get_backend
from mi_ref.config import DecoderConfig, Experts, GatedMLP, Layer, PlainMLP
from mi_ref.families import FAMILIES
from mi_ref.hf_config import HfConfig
from mi_ref.rope import DefaultRope, Rotary
from mi_ref.take_recurrent import recurrent_modules
from mi_ref.weight_names import modules_of
from mi_ref.weights import Weights

Load = Callable[..., Model]


def parse(family: str, **keys: Any) -> DecoderConfig:
    read = HfConfig({"model_type": family, **keys}, source="config.json", family=family)
    cfg = FAMILIES[family].read_config(read)
    read.done()
    return cfg


def load(case: str) -> Model:
    folder = Path(__file__).resolve().parents[1] / "golden" / case
    return mi_ref.from_pretrained(folder, backend=get_backend("numpy"))


# Read off transformers 5.23.0, models/*/configuration_*.py and, for biases, modeling_*.py:
# d_model, d_vocab, n_ctx, n_layers, n_heads, n_key_value_heads, d_head, d_mlp, eps, act_fn, tied
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "mistral": (4096, 32000, 131072, 32, 32, 8, 128, 14336, 1e-6, "silu", False),
    "qwen2": (4096, 151936, 32768, 32, 32, 32, 128, 22016, 1e-6, "silu", False),
    "qwen3": (4096, 151936, 32768, 32, 32, 32, 128, 22016, 1e-6, "silu", False),
    "phi3": (3072, 32064, 4096, 32, 32, 32, 96, 8192, 1e-5, "silu", False),
    "phi": (2048, 51200, 2048, 24, 32, 32, 64, 8192, 1e-5, "gelu_tanh", False),
    "gemma": (3072, 256000, 8192, 28, 16, 16, 256, 24576, 1e-6, "gelu_tanh", True),
    "gemma2": (2304, 256000, 8192, 26, 8, 4, 256, 9216, 1e-6, "gelu_tanh", True),
    "gemma3_text": (2304, 262208, 131072, 26, 8, 4, 256, 9216, 1e-6, "gelu_tanh", True),
    "starcoder2": (3072, 49152, 4096, 30, 24, 2, 128, 12288, 1e-5, "gelu_tanh", True),
    "gpt2": (768, 50257, 1024, 12, 12, 12, 64, 3072, 1e-5, "gelu_tanh", True),
    "gpt_neox": (6144, 50432, 2048, 44, 64, 64, 96, 24576, 1e-5, "gelu", False),
    "olmo2": (4096, 50304, 2048, 32, 32, 32, 128, 11008, 1e-5, "silu", False),
    "mixtral": (4096, 32000, 131072, 32, 32, 8, 128, 14336, 1e-5, "silu", False),
    "qwen3_moe": (2048, 151936, 32768, 24, 32, 4, 64, 768, 1e-6, "silu", False),
}


@pytest.mark.parametrize("family", DEFAULTS)
def test_absent_keys_are_huggingface_defaults(family: str) -> None:
    cfg = parse(family)
    found = (
        cfg.d_model, cfg.d_vocab, cfg.n_ctx, cfg.n_layers, cfg.n_heads, cfg.n_key_value_heads,
        cfg.d_head, cfg.d_mlp, cfg.eps, cfg.act_fn, cfg.tied,
    )  # fmt: skip
    assert found == DEFAULTS[family]


def test_every_family_has_its_defaults_tested() -> None:
    """Those of recurrent families are no classes of transformers: tests/test_rwkv_family.py."""
    attending = {family for family in FAMILIES if not parse(family).recurrent}
    assert attending - set(DEFAULTS) == {"llama"}


# bias_qkv, bias_out, bias of a dense MLP, softcap of scores, embed_scale, softcap of logits
FURTHER: dict[str, tuple[Any, ...]] = {
    "mistral": (False, False, False, None, None, None),
    "qwen2": (True, False, False, None, None, None),
    "qwen3": (False, False, False, None, None, None),
    "phi3": (False, False, False, None, None, None),
    "phi": (True, True, True, None, None, None),
    "gemma": (False, False, False, None, 3072**0.5, None),
    "gemma2": (False, False, False, 50.0, 2304**0.5, 30.0),
    "gemma3_text": (False, False, False, None, 2304**0.5, None),
    "starcoder2": (True, True, True, None, None, None),
    "gpt2": (True, True, True, None, None, None),
    "gpt_neox": (True, True, True, None, None, None),
    "olmo2": (False, False, False, None, None, None),
    "mixtral": (False, False, None, None, None, None),
    "qwen3_moe": (False, False, None, None, None, None),
}


@pytest.mark.parametrize("family", FURTHER)
def test_biases_and_caps_by_default(family: str) -> None:
    cfg = parse(family)
    attn, mlp = cfg.blocks[0].attn, cfg.blocks[0].mlp
    bias = None if isinstance(mlp, Experts) else mlp.bias
    found = (attn.bias_qkv, attn.bias_out, bias, attn.softcap, cfg.embed_scale, cfg.softcap)
    assert found == FURTHER[family]
    assert cfg.bias_unembed == (family == "phi")
    plain = family in ("phi", "starcoder2", "gpt2", "gpt_neox")
    if not isinstance(mlp, Experts):
        assert isinstance(mlp, PlainMLP if plain else GatedMLP)


@pytest.mark.parametrize(
    ("family", "theta", "dims"),
    [
        ("mistral", 10_000.0, 128),
        ("qwen2", 10_000.0, 128),
        ("qwen3", 10_000.0, 128),
        ("phi3", 10_000.0, 96),
        ("phi", 10_000.0, 32),
        ("gemma", 10_000.0, 256),
        ("gemma2", 10_000.0, 256),
        ("starcoder2", 10_000.0, 128),
        ("gpt_neox", 10_000.0, 24),
        ("olmo2", 10_000.0, 128),
        ("mixtral", 1_000_000.0, 128),
        ("qwen3_moe", 10_000.0, 64),
    ],
)
def test_rotary_embedding_by_default(family: str, theta: float, dims: int) -> None:
    expected = Rotary(rope=DefaultRope(theta=theta), dims=dims)
    assert {layer.attn.rotary for layer in parse(family).blocks} == {expected}


def test_gemma3_has_two_rotary_embeddings_and_five_windows_to_one() -> None:
    cfg = parse("gemma3_text")
    for number, layer in enumerate(cfg.blocks):
        full = number % 6 == 5
        assert layer.attn.window == (None if full else 4096)
        rope = DefaultRope(theta=1_000_000.0 if full else 10_000.0)
        assert layer.attn.rotary == Rotary(rope=rope, dims=256)
        assert layer.attn.scale == 256**-0.5


@pytest.mark.parametrize(
    ("family", "keys", "windows"),
    [
        ("mistral", {}, {4096}),
        ("mistral", {"sliding_window": None}, {None}),
        ("mistral", {"sliding_window": 7}, {7}),
        ("phi3", {}, {None}),
        ("phi3", {"sliding_window": 7}, {7}),
        ("starcoder2", {}, {None}),
        ("starcoder2", {"sliding_window": 7}, {7}),
        ("mixtral", {}, {None}),
        ("mixtral", {"sliding_window": 7}, {7}),
        ("qwen2", {"sliding_window": 7}, {None}),
        ("qwen3_moe", {"sliding_window": 7}, {None}),
        ("qwen3_moe", {"use_sliding_window": True}, {4096}),
        ("qwen3_moe", {"use_sliding_window": True, "sliding_window": None}, {None}),
        ("llama", {}, {None}),
    ],
)
def test_windows_of_all_layers(family: str, keys: dict[str, Any], windows: set[Any]) -> None:
    assert {layer.attn.window for layer in parse(family, **keys).blocks} == windows


@pytest.mark.parametrize(
    ("family", "keys", "windows"),
    [
        ("gemma2", {}, [4096, None, 4096, None]),
        ("gemma2", {"layer_types": ["full_attention"] * 4, "sliding_window": None}, [None] * 4),
        ("gemma3_text", {"sliding_window_pattern": 2}, [4096, None, 4096, None]),
        ("qwen2", {"use_sliding_window": True, "max_window_layers": 3}, [None] * 3 + [4096]),
        ("qwen3", {"use_sliding_window": True, "max_window_layers": 0}, [4096] * 4),
        ("qwen3", {"use_sliding_window": True, "sliding_window": None}, [None] * 4),
        ("qwen2", {"use_sliding_window": True}, [None] * 4),
    ],
)
def test_windows_by_layer(family: str, keys: dict[str, Any], windows: list[Any]) -> None:
    cfg = parse(family, num_hidden_layers=4, **keys)
    assert [layer.attn.window for layer in cfg.blocks] == windows


@pytest.mark.parametrize(
    ("keys", "mixtures"),
    [
        ({}, [0, 1, 2, 3]),
        ({"mlp_only_layers": [0, 2]}, [1, 3]),
        ({"decoder_sparse_step": 2}, [1, 3]),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [3]}, [1]),
    ],
)
def test_which_layers_are_mixtures(keys: dict[str, Any], mixtures: list[int]) -> None:
    layers = parse("qwen3_moe", num_hidden_layers=4, **keys).blocks
    assert [n for n, x in enumerate(layers) if isinstance(x.mlp, Experts)] == mixtures
    for number, layer in enumerate(layers):
        assert layer.mlp.d_mlp == (768 if number in mixtures else 6144)


def test_experts_by_default() -> None:
    for family, sizes in (("mixtral", (8, 2, True)), ("qwen3_moe", (128, 8, False))):
        mlp = parse(family).blocks[0].mlp
        assert isinstance(mlp, Experts)
        assert (mlp.n_experts, mlp.n_active, mlp.renormalise) == sizes


@pytest.mark.parametrize(
    ("family", "keys", "message"),
    [
        ("gemma2", {"num_hidden_layers": 3, "layer_types": ["full_attention"] * 2},
         "layer_types lists 2 layers; num_hidden_layers is 3"),
        ("gemma2", {"num_hidden_layers": 1, "layer_types": ["chunked_attention"]},
         r"layer_types is \['chunked_attention'\]; gemma2 needs a list of values among"),
        ("gemma2", {"sliding_window": None},
         "layer_types has sliding_attention, and sliding_window, its width, is off"),
        ("qwen2", {"num_hidden_layers": 2, "layer_types": ["sliding_attention"] * 2},
         "layer_types has sliding_attention, and sliding_window, its width, is off"),
        ("mistral", {"sliding_window": 0}, "sliding_window is 0; mistral needs a whole number"),
        ("phi3", {"sliding_window": 0}, "sliding_window is 0; phi3 needs a whole number"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}},
         r"rope_scaling\.type is 'yarn'; phi3 needs one of 'default', 'longrope', 'su'"),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": []}},
         r"short_factor is \[1\.0\]; phi3 needs a list of 48 numbers.*long_factor is \[\]"),
        ("phi3", {"attention_bias": True}, "attention_bias is True: HuggingFace's Phi-3 has no"),
        ("gpt2", {"activation_function": "mish"}, "activation_function is 'mish'; gpt2"),
        ("gemma2", {"hidden_activation": "mish"}, "hidden_activation is 'mish'; gemma2 needs one"),
        ("gemma", {"hidden_activation": "silu"}, "HuggingFace reads hidden_act instead"),
        ("gemma2", {"hidden_act": "silu"}, "HuggingFace reads hidden_activation instead"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "no query sees a later key here"),
        ("mixtral", {"num_experts_per_tok": 9},
         "num_experts_per_tok 9 exceeds num_local_experts 8"),
        ("qwen3_moe", {"num_experts": 7}, "num_experts_per_tok 8 exceeds num_experts 7"),
        ("qwen3_moe", {"mlp_only_layers": [-1]}, r"mlp_only_layers is \[-1\]"),
        ("gpt2", {"n_embd": 770}, "n_embd 770 is no multiple of n_head 12"),
        ("gpt2", {"add_cross_attention": True}, "there is no encoder to attend to"),
        ("gpt2", {"n_ctx": 512}, "n_ctx is 512: n_positions is 1024"),
        ("gpt_neox", {"hidden_size": 100}, "100 is no multiple of num_attention_heads 64"),
        ("gpt_neox", {"rotary_pct": 0.01}, "turns 0 coordinates of a head; it needs an even"),
        ("phi", {"partial_rotary_factor": 0.49}, "turns 31 coordinates"),
        ("starcoder2", {"norm_type": "rms_norm"}, "HuggingFace's StarCoder2 has layer norms"),
        ("starcoder2", {"mlp_type": "gated"}, "HuggingFace's StarCoder2 has a plain MLP"),
        ("starcoder2", {"num_key_value_heads": 5}, "24 is no multiple of num_key_value_heads 5"),
        ("olmo2", {"clip_qkv": 8.0}, r"olmo2 family does not read clip_qkv=8\.0"),
        ("mistral", {"attention_bias": True}, "mistral family does not read attention_bias=True"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(
    family: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(family, **keys)


@pytest.mark.parametrize(
    ("case", "selector", "reason"),
    [
        ("phi", at.resid_mid[0], "attention and MLP read the same stream in parallel; use"),
        ("gpt-neox-parallel", at.resid_mid[:], r"at\.resid_mid does not exist .* in parallel"),
        ("phi", at.ln2_scale[0], r"the MLP reads what attention reads: see at\.ln1_scale"),
        ("phi", at.pre_linear[0], r"the MLP has no gate: at\.pre is its only branch"),
        ("gpt2", at.rot_q[1], r"nothing is rotated: at\.q and at\.k are what is dotted"),
        ("gpt2", at.rot_k[:], "nothing is rotated"),
        ("mixtral", at.pre[0], r"each token has neurons in its own few experts; see at\.expert_w"),
        ("mixtral", at.post[:], "each token has neurons in its own few experts"),
        ("qwen3-moe", at.router_logits[1], r"at\.router_logits\[1\] does not exist .*mixture"),
        ("qwen3-moe", at.pre[0], r"at\.pre\[0\] does not exist .* its own few experts"),
        ("olmo2", at.ln1_scale[0], r"nothing norms what attention reads; .* at at\.ln1_post_scale"),
        ("olmo2", at.ln2_normalized[0], r"nothing norms what the MLP reads; .*at\.ln2_post_scale"),
        ("gemma", at.pos_embed, r"positions enter by rotation, at at\.rot_q and at\.rot_k"),
        ("gemma", at.ln1_post_scale[0], "what attention writes is added as it is"),
        ("gemma2", at.q_norm_scale[0], "queries and keys are not normed"),
        ("llama2", at.ln2_post_scale[1], "what the MLP writes is added as it is"),
        ("llama2", at.router_logits[:], "the MLP is one, not a mixture of experts"),
    ],
)
@pytest.mark.usefixtures("as_users_call")
def test_absent_sites_give_their_reason(case: str, selector: Any, reason: str) -> None:
    model = load(case)
    for options in ({"capture": [selector]}, {"edits": [(selector, lambda x, hook: x)]}):
        with pytest.raises(HookError, match=reason):
            model.run([[1, 2, 3]], **options)


def test_a_slice_means_the_layers_that_have_the_site() -> None:
    model = load("qwen3-moe")
    run = model.run([1, 2, 3], capture=[at.router_logits[:], at.pre[:], at.post[1]])
    assert list(run.cache) == [at.router_logits[0], at.pre[1], at.post[1], at.router_logits[2]]
    table = str(model.hook_points.table())
    assert "Only in layers 0, 2." in table
    assert "Only in layers 1." in table
    with pytest.raises(HookError, match=r"at\.router_logits\[1\] does not exist in this model"):
        model.run([1, 2, 3], capture=[at.router_logits[1:2]])


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Any:
    """Write a golden model's folder anew, its tensors changed."""

    def write_copy(case: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Path:
        source = repository / "golden" / case
        (tmp_path / "config.json").write_text((source / "config.json").read_text())
        weights = Weights([source / "model.safetensors"])
        tensors = change({name: weights.load(name, "float32") for name in weights.info})
        save_file(dict(tensors), tmp_path / "model.safetensors")
        return tmp_path

    return write_copy


@pytest.mark.parametrize(
    ("case", "prefix", "masks"),
    [
        ("gpt2", "transformer.", ["h.0.attn.bias", "h.1.attn.bias", "h.0.attn.masked_bias"]),
        ("gpt-neox-parallel", "gpt_neox.",
         ["layers.0.attention.bias", "layers.1.attention.rotary_emb.inv_freq"]),
    ],
)  # fmt: skip
def test_files_of_the_bare_model_and_old_masks(
    case: str, prefix: str, masks: list[str], copy: Any
) -> None:
    def bare(tensors: dict[str, Any]) -> dict[str, Any]:
        short = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
        assert short.keys() != tensors.keys()
        return short | {mask: np.ones((1, 1, 4, 4), np.float32) for mask in masks}

    whole = load(case).run([1, 2, 3]).logits
    found = mi_ref.from_pretrained(copy(case, bare)).run([1, 2, 3]).logits
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
    case: str, missing: str | None, unused: str, copy: Any
) -> None:
    def spoil(tensors: dict[str, Any]) -> dict[str, Any]:
        if missing is not None:
            del tensors[missing]
        return tensors | {unused: np.zeros(3, np.float32)}

    with pytest.raises(WeightError) as refusal:
        mi_ref.from_pretrained(copy(case, spoil))
    assert f"{unused} (3,) is not used by this architecture" in str(refusal.value)
    if missing is not None:
        assert f"{missing} is missing: (" in str(refusal.value)


def test_a_fused_tensor_of_another_width_is_explained(copy: Any) -> None:
    name = "model.layers.0.mlp.gate_up_proj.weight"

    def halve(tensors: dict[str, Any]) -> dict[str, Any]:
        return tensors | {name: tensors[name][:20]}

    with pytest.raises(WeightError, match=r"gate_up_proj\.weight is \(20, \d+\).*asks for \(40, "):
        mi_ref.from_pretrained(copy("phi3-window", halve))


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
