"""Every family with attention: HuggingFace's defaults, and refused config values."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from mi_ref import ConfigError
from mi_ref.config.decoder import DecoderConfig, Experts, GatedMLP, PlainMLP, RMSNorm
from mi_ref.config.rope import DefaultRope, Rotary
from mi_ref.families import FAMILIES
from tests.fixtures.family_configs import parse

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
    """Recurrent families have no class in transformers: see tests/families/test_rwkv_family.py."""
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


# What each family has by default that LLaMA has not, or has differently: the builder that families
# share leaves out what few of them have, so a family that lost a part shows here.
DIFFERS: dict[str, set[str]] = {
    "llama": set(),
    "mistral": {"mask"},
    "qwen2": {"bias_qkv"},
    "qwen3": {"QKNorm"},
    "phi3": set(),
    "phi": {"order", "ln2", "norm", "mlp", "bias_qkv", "bias_out", "bias_unembed"},
    "gemma": {"norm", "embed_scale", "tied"},
    "gemma2": {
        "norm",
        "embed_scale",
        "tied",
        "ln1_post",
        "ln2_post",
        "mask",
        "ScoreCap",
        "softcap",
    },
    "gemma3_text": {"norm", "embed_scale", "tied", "ln1_post", "ln2_post", "mask", "QKNorm"},
    "starcoder2": {"norm", "mlp", "bias_qkv", "bias_out", "tied"},
    "gpt2": {"norm", "mlp", "bias_qkv", "bias_out", "tied", "rotary", "learned_positions"},
    "gpt_neox": {"order", "norm", "mlp", "bias_qkv", "bias_out"},
    "olmo2": {"ln1", "ln2", "ln1_post", "ln2_post", "QKNorm"},
    "mixtral": {"mlp"},
    "qwen3_moe": {"mlp", "QKNorm"},
}


def structure(cfg: DecoderConfig) -> dict[str, Any]:
    """Return what a decoder is made of, without sizes."""
    layers = cfg.blocks
    parts: dict[str, Any] = {
        "norm": (
            type(cfg.ln_final),
            isinstance(cfg.ln_final, RMSNorm) and cfg.ln_final.unit_offset,
        ),
        "embed_scale": cfg.embed_scale is not None,
        "softcap": cfg.softcap is not None,
        "order": {layer.order for layer in layers},
        "mlp": {type(layer.mlp) for layer in layers},
        "mask": {type(layer.attn.mask) for layer in layers},
        "rotary": {layer.attn.rotary is None for layer in layers},
        "bias_qkv": {layer.attn.bias_qkv for layer in layers},
        "bias_out": {layer.attn.bias_out for layer in layers},
    }
    for name in ("learned_positions", "ln_embed", "bias_unembed", "tied", "reading"):
        parts[name] = getattr(cfg, name)
    for slot in ("ln1", "ln1_post", "ln2", "ln2_post"):
        norms = {getattr(layer, slot) for layer in layers}
        assert norms <= {None, cfg.ln_final}
        parts[slot] = norms == {None}
    for extra in {type(extra).__name__ for layer in layers for extra in layer.attn.extras}:
        parts[extra] = True
    return parts


@pytest.mark.parametrize("family", [f for f in FAMILIES if not parse(f).recurrent])
def test_how_a_family_differs_from_llama(family: str) -> None:
    plain, own = structure(parse("llama")), structure(parse(family))
    differs = {part for part in plain.keys() | own.keys() if plain.get(part) != own.get(part)}
    assert differs == DIFFERS[family]


def test_every_field_of_the_structure_is_compared() -> None:
    """A new field has to be added to `structure`, so that the table above covers it."""
    cfg = parse("llama")
    sizes = {"model_type", "d_model", "d_vocab", "n_ctx", "layers", "attn"}
    sizes |= {"n_heads", "n_key_value_heads", "d_head", "scale", "extras", "ln_final"}
    found = {
        field.name for part in (cfg, cfg.blocks[0], cfg.blocks[0].attn) for field in fields(part)
    }
    assert found - sizes == set(structure(cfg)) - {"norm"}


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
         "layer_types lists 2 layers, but num_hidden_layers is 3"),
        ("gemma2", {"num_hidden_layers": 1, "layer_types": ["chunked_attention"]},
         r"layer_types: expected a list of values among.*got \['chunked_attention'\]"),
        ("gemma2", {"sliding_window": None},
         "layer_types has sliding_attention, but sliding_window, its width, is off"),
        ("qwen2", {"num_hidden_layers": 2, "layer_types": ["sliding_attention"] * 2},
         "layer_types has sliding_attention, but sliding_window, its width, is off"),
        ("mistral", {"sliding_window": 0}, "sliding_window: expected a whole number .*, got 0"),
        ("phi3", {"sliding_window": 0}, "sliding_window: expected a whole number above 0, got 0"),
        ("phi3", {"rope_scaling": {"type": "yarn", "factor": 2.0}},
         r"rope_scaling\.type: expected one of 'default', 'longrope', 'su', got 'yarn'"),
        ("phi3", {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": []}},
         r"short_factor: .* list of 48 numbers .*got \[1\.0\]; .*long_factor: .*got \[\]"),
        ("phi3", {"attention_bias": True}, "attention_bias is True: HuggingFace's Phi-3 has no"),
        ("gpt2", {"activation_function": "mish"}, "activation_function: expected one.*got 'mish'"),
        ("gemma2", {"hidden_activation": "mish"}, "hidden_activation: expected one.*got 'mish'"),
        ("gemma", {"hidden_activation": "silu"}, "HuggingFace reads hidden_act instead"),
        ("gemma2", {"hidden_act": "silu"}, "HuggingFace reads hidden_activation instead"),
        ("gemma3_text", {"use_bidirectional_attention": True}, "attention is causal here"),
        ("mixtral", {"num_experts_per_tok": 9},
         "num_experts_per_tok 9 exceeds num_local_experts 8"),
        ("qwen3_moe", {"num_experts": 7}, "num_experts_per_tok 8 exceeds num_experts 7"),
        ("qwen3_moe", {"mlp_only_layers": [-1]}, r"mlp_only_layers: expected .*, got \[-1\]"),
        ("gpt2", {"n_embd": 770}, "n_embd 770 is not a multiple of n_head 12"),
        ("gpt2", {"add_cross_attention": True}, "there is no encoder to attend to"),
        ("gpt2", {"n_ctx": 512}, "n_ctx is 512: n_positions is 1024"),
        ("gpt_neox", {"hidden_size": 100}, "100 is not a multiple of num_attention_heads 64"),
        ("gpt_neox", {"rotary_pct": 0.01}, "expected an even number of .*, got 0"),
        ("phi", {"partial_rotary_factor": 0.49}, "expected an even number of .*, got 31"),
        ("starcoder2", {"norm_type": "rms_norm"}, "HuggingFace's StarCoder2 has layer norms"),
        ("starcoder2", {"mlp_type": "gated"}, "HuggingFace's StarCoder2 has a plain MLP"),
        ("starcoder2", {"num_key_value_heads": 5}, "24 is not a multiple of num_key_value_heads 5"),
        ("olmo2", {"clip_qkv": 8.0}, r"olmo2 family does not read clip_qkv=8\.0"),
        ("mistral", {"attention_bias": True}, "mistral family does not read attention_bias=True"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(
    family: str, keys: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(family, **keys)
