"""The config fence: every key is read, inert or refused; real checkpoints' files load unchanged."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mi_ref
from mi_ref import ArgumentError, ConfigError
from mi_ref.config.compat import with_compat
from mi_ref.config.decoder import DecoderConfig, GatedMLP
from mi_ref.config.rope import DefaultRope, LinearRope, Llama3Rope, Rotary
from mi_ref.families import FAMILIES
from mi_ref.families.reading.config_file import HfConfig
from tests.fixtures.family_configs import parse as parse_family

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 24,
    "intermediate_size": 20,
    "max_position_embeddings": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 48,
}


def parse(raw: dict[str, Any]) -> DecoderConfig:
    read = HfConfig(raw, source="config.json", family="llama")
    cfg = FAMILIES["llama"].read_config(read)
    read.done()
    return cfg


def test_absent_keys_are_huggingface_defaults() -> None:
    cfg = parse({"model_type": "llama"})
    assert (cfg.d_model, cfg.d_vocab, cfg.n_ctx, cfg.n_layers) == (4096, 32000, 2048, 32)
    assert (cfg.n_heads, cfg.n_key_value_heads, cfg.d_head, cfg.d_mlp) == (32, 32, 128, 11008)
    assert (cfg.eps, cfg.act_fn, cfg.tied) == (1e-6, "silu", False)
    attn = cfg.blocks[0].attn
    assert attn.rotary == Rotary(rope=DefaultRope(theta=10_000.0), dims=128)
    assert attn.scale == pytest.approx(0.08838834764831845, rel=1e-15)
    assert (attn.bias_qkv, attn.bias_out) == (False, False)
    assert cfg.blocks[0].mlp == GatedMLP(d_mlp=11008, act_fn="silu", bias=False)


def test_layers_of_both_kinds_are_neither_recurrent_nor_lost() -> None:
    attending, recurrent = parse(SMALL), parse_family("rwkv7", num_hidden_layers=1)
    mixed = replace(attending, layers=(*recurrent.layers, *attending.layers))
    assert (recurrent.recurrent, attending.recurrent, mixed.recurrent) == (True, False, False)
    assert mixed.blocks == attending.layers
    deviating = with_compat(mixed, "candle-mi")
    assert deviating.layers[0] == mixed.layers[0]
    assert deviating.compat == "candle-mi"
    assert (mixed.n_heads, mixed.layers[-1].mixer.n_heads) == (recurrent.n_heads, 4)


def test_null_is_absence() -> None:
    keys = ("num_key_value_heads", "head_dim", "rope_scaling", "rope_theta", "attention_bias",
            "mlp_bias", "rms_norm_eps", "hidden_act", "tie_word_embeddings", "pretraining_tp",
            "rope_parameters", "pad_token_id", "is_causal")  # fmt: skip
    assert parse(SMALL | dict.fromkeys(keys)) == parse(SMALL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sliding_window": 4096}, "the llama family does not read sliding_window=4096"),
        ({"partial_rotary_factor": 0.5}, "does not read partial_rotary_factor=0.5"),
        ({"quantization_config": {"bits": 4}}, r"does not read quantization_config=\{'bits': 4\}"),
        ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping=50.0"),
        ({"embedding_multiplier": 12}, "embedding_multiplier=12.*allow_unread_config"),
        ({"is_causal": False}, "is_causal is False: attention is causal here"),
        ({"rope_interleaved": True}, "rope_interleaved is True: HuggingFace's LLaMA rotates"),
        ({"hidden_size": "24"}, "hidden_size: expected a whole number above 0, got '24'"),
        ({"hidden_size": 24.0}, r"hidden_size: expected a whole number above 0, got 24\.0"),
        ({"num_hidden_layers": 0}, "num_hidden_layers: expected a whole number above 0, got 0"),
        ({"num_hidden_layers": True}, "num_hidden_layers: expected a whole number .*, got True"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps: expected a number above 0, got '1e-5'"),
        ({"rms_norm_eps": -1e-5}, "rms_norm_eps: expected a number above 0, got -1e-05"),
        ({"rms_norm_eps": float("inf")}, "rms_norm_eps: expected a number above 0, got inf"),
        ({"rope_theta": float("nan")}, "rope_theta: expected a number above 0, got nan"),
        ({"attention_bias": 1}, "attention_bias: expected true or false, got 1"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings: expected true or false, got 'no'"),
        ({"hidden_act": "mish"}, "hidden_act: expected one of 'silu', .*got 'mish'"),
        ({"num_key_value_heads": 3}, "heads 4 is not a multiple of num_key_value_heads 3"),
        ({"num_attention_heads": 5}, "hidden_size 24 is not a multiple of num_attention_heads 5"),
        ({"head_dim": 7}, "rotary embedding: expected an even number of .*, got 7"),
        ({"num_attention_heads": 8}, "rotary embedding: expected an even number of .*, got 3"),
        ({"rope_scaling": {"type": "ntk"}}, r"rope_scaling\.type: expected one of .*, got 'ntk'"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1, 2, 3]}},
         r"rope_scaling\.long_factor: expected a list of 3 numbers above 0, but it is missing"),
        ({"rope_scaling": {"type": "longrope", "short_factor": [1], "long_factor": [1, 2, 3]}},
         r"rope_scaling\.short_factor: expected a list of 3 numbers above 0, got \[1\]"),
        ({"rope_scaling": "linear"}, "rope_scaling: expected an object, got 'linear'"),
        ({"rope_scaling": {"rope_type": "linear"}}, r"rope_scaling\.factor: .* but it is missing"),
        ({"rope_parameters": {"rope_type": "xpos"}}, r"rope_parameters\.rope_type: .*got 'xpos'"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0, "bend": 3}}, r"rope_scaling\.bend=3"),
        ({"rope_scaling": {"type": "default", "partial_rotary_factor": 0.25}},
         r"rope_scaling\.partial_rotary_factor=0\.25"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
         r"low_freq_factor: .*is missing; .*high_freq_factor: .*is missing"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(SMALL | change)


def test_all_faults_at_once() -> None:
    wrong = {"hidden_act": "mish", "rms_norm_eps": 0, "sliding_window": 8, "use_qk_norm": True,
             "is_causal": False, "num_key_value_heads": 3}  # fmt: skip
    with pytest.raises(ConfigError) as refusal:
        parse(SMALL | wrong)
    for key in wrong:
        assert key in str(refusal.value)
    assert str(refusal.value).startswith("config.json cannot be honoured: ")


@pytest.fixture
def checkpoint(repository: Path, tmp_path: Path) -> Path:
    """A copy of a golden model whose config may be changed."""
    for name in ("config.json", "model.safetensors"):
        shutil.copy(repository / "golden" / "data" / "llama2" / name, tmp_path)
    return tmp_path


def change(checkpoint: Path, **keys: Any) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | keys))


def test_an_allowed_key_is_recorded(checkpoint: Path) -> None:
    change(checkpoint, colour="blue", shade=3)
    with pytest.raises(ConfigError, match=r"colour='blue', shade=3.*=\('colour', 'shade'\)"):
        mi_ref.from_pretrained(checkpoint)
    # A string would allow every key that is part of it.
    with pytest.raises(ArgumentError, match=r"expected a collection.*Pass \('colour',\)"):
        mi_ref.from_pretrained(checkpoint, allow_unread_config="colour")
    with pytest.raises(ConfigError, match="does not read shade=3"):
        mi_ref.from_pretrained(checkpoint, allow_unread_config=["colour"])
    model = mi_ref.from_pretrained(checkpoint, allow_unread_config=["colour", "shade", "absent"])
    assert model.cfg.unread_config == ("colour", "shade")


def test_a_config_that_is_no_object(checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("[1]")
    with pytest.raises(ConfigError, match=r"expected a JSON object, got a list"):
        mi_ref.from_pretrained(checkpoint)
    (checkpoint / "config.json").write_text("<html>")
    with pytest.raises(ConfigError, match=r"config\.json is not JSON: .*Fetch the file again"):
        mi_ref.from_pretrained(checkpoint)


@pytest.mark.parametrize(
    ("model_type", "named"),
    [
        ("llamma", "'llamma'"),
        ("mamba", "'mamba'"),
        ("bert", "'bert'"),
        (None, "absent"),
    ],
)
def test_an_unknown_family_is_named(checkpoint: Path, model_type: Any, named: str) -> None:
    change(checkpoint, model_type=model_type, colour="blue")
    with pytest.raises(ConfigError, match=f"(?s){named}.*supported: .*llama.*nearest is llama"):
        mi_ref.from_pretrained(checkpoint)


_COMMON: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "model_type": "llama",
    "use_cache": True,
}


def sizes(d_model: int, d_mlp: int, n_heads: int, n_layers: int, n_ctx: int, vocab: int,
          **others: Any) -> dict[str, Any]:  # fmt: skip
    return _COMMON | {
        "hidden_size": d_model,
        "intermediate_size": d_mlp,
        "num_attention_heads": n_heads,
        "num_hidden_layers": n_layers,
        "max_position_embeddings": n_ctx,
        "vocab_size": vocab,
    } | others  # fmt: skip


_LLAMA3_SCALING = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
    "rope_type": "llama3",
}
_NEWER = {"attention_bias": False, "attention_dropout": 0.0, "mlp_bias": False, "pretraining_tp": 1}


def llama3_rope(factor: float) -> Llama3Rope:
    return Llama3Rope(theta=500_000.0, factor=factor, low_freq_factor=1.0, high_freq_factor=4.0,
                      original_n_ctx=8192)  # fmt: skip


# name, config.json as on the Hub, (n_key_value_heads, d_head, eps, tied), rope
HUB: list[tuple[str, dict[str, Any], tuple[int, int, float, bool], Any]] = [
    ("huggyllama/llama-7b",
     sizes(4096, 11008, 32, 32, 2048, 32000, rms_norm_eps=1e-6, max_sequence_length=2048,
           pad_token_id=0, tie_word_embeddings=False, torch_dtype="float16",
           transformers_version="4.28.0.dev0"),
     (32, 128, 1e-6, False), DefaultRope(theta=10_000.0)),
    ("meta-llama/Llama-2-7b-hf",
     sizes(4096, 11008, 32, 32, 4096, 32000, rms_norm_eps=1e-5, num_key_value_heads=32,
           pretraining_tp=1, rope_scaling=None, tie_word_embeddings=False, torch_dtype="float16",
           _name_or_path="meta-llama/Llama-2-7b-hf", transformers_version="4.31.0.dev0"),
     (32, 128, 1e-5, False), DefaultRope(theta=10_000.0)),
    ("lmsys/vicuna-7b-v1.5",
     sizes(4096, 11008, 32, 32, 4096, 32000, rms_norm_eps=1e-5, num_key_value_heads=32,
           pretraining_tp=1, rope_scaling=None, pad_token_id=0, tie_word_embeddings=False,
           _name_or_path="vicuna-7b-v1.5", transformers_version="4.31.0"),
     (32, 128, 1e-5, False), DefaultRope(theta=10_000.0)),
    ("codellama/CodeLlama-7b-hf",
     sizes(4096, 11008, 32, 32, 16384, 32016, rms_norm_eps=1e-5, num_key_value_heads=32,
           pretraining_tp=1, rope_scaling=None, rope_theta=1_000_000, tie_word_embeddings=False),
     (32, 128, 1e-5, False), DefaultRope(theta=1_000_000.0)),
    ("deepseek-ai/deepseek-coder-1.3b-base",
     sizes(2048, 5504, 16, 24, 16384, 32256, rms_norm_eps=1e-6, num_key_value_heads=16,
           pretraining_tp=1, rope_scaling={"factor": 4.0, "type": "linear"}, rope_theta=100_000,
           tie_word_embeddings=False, bos_token_id=32013, eos_token_id=32014),
     (16, 128, 1e-6, False), LinearRope(theta=100_000.0, factor=4.0)),
    ("TinyLlama/TinyLlama-1.1B-Chat-v1.0",
     sizes(2048, 5632, 32, 22, 2048, 32000, rms_norm_eps=1e-5, num_key_value_heads=4,
           attention_bias=False, pretraining_tp=1, rope_scaling=None, rope_theta=10000.0,
           tie_word_embeddings=False, torch_dtype="bfloat16"),
     (4, 64, 1e-5, False), DefaultRope(theta=10_000.0)),
    ("01-ai/Yi-6B",
     sizes(4096, 11008, 32, 32, 4096, 64000, rms_norm_eps=1e-5, num_key_value_heads=4,
           pretraining_tp=1, rope_scaling=None, rope_theta=5_000_000.0, pad_token_id=0,
           tie_word_embeddings=False),
     (4, 128, 1e-5, False), DefaultRope(theta=5_000_000.0)),
    ("HuggingFaceTB/SmolLM-135M",
     sizes(576, 1536, 9, 30, 2048, 49152, rms_norm_eps=1e-5, num_key_value_heads=3, **_NEWER,
           rope_scaling=None, rope_theta=10000.0, tie_word_embeddings=True, bos_token_id=0,
           eos_token_id=0, torch_dtype="bfloat16"),
     (3, 64, 1e-5, True), DefaultRope(theta=10_000.0)),
    ("HuggingFaceTB/SmolLM2-135M",
     sizes(576, 1536, 9, 30, 8192, 49152, rms_norm_eps=1e-5, num_key_value_heads=3, **_NEWER,
           is_llama_config=True, rope_interleaved=False, rope_scaling=None, rope_theta=100_000,
           tie_word_embeddings=True, bos_token_id=0, eos_token_id=0,
           **{"transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}}}),
     (3, 64, 1e-5, True), DefaultRope(theta=100_000.0)),
    ("meta-llama/Llama-3.1-8B",
     sizes(4096, 14336, 32, 32, 131072, 128256, rms_norm_eps=1e-5, num_key_value_heads=8, **_NEWER,
           rope_scaling=_LLAMA3_SCALING | {"factor": 8.0}, rope_theta=500_000.0,
           tie_word_embeddings=False, bos_token_id=128000, eos_token_id=[128001, 128008]),
     (8, 128, 1e-5, False), llama3_rope(8.0)),
    ("meta-llama/Llama-3.2-1B",
     sizes(2048, 8192, 32, 16, 131072, 128256, rms_norm_eps=1e-5, num_key_value_heads=8, **_NEWER,
           head_dim=64, rope_scaling=_LLAMA3_SCALING | {"factor": 32.0}, rope_theta=500_000.0,
           tie_word_embeddings=True, bos_token_id=128000, eos_token_id=128001),
     (8, 64, 1e-5, True), llama3_rope(32.0)),
]  # fmt: skip


@pytest.mark.parametrize(("name", "raw", "values", "rope"), HUB, ids=[entry[0] for entry in HUB])
def test_configs_of_the_hub(
    name: str, raw: dict[str, Any], values: tuple[int, int, float, bool], rope: Any
) -> None:
    cfg = parse(raw)
    assert (cfg.n_key_value_heads, cfg.d_head, cfg.eps, cfg.tied) == values
    assert (cfg.d_model, cfg.d_mlp, cfg.n_heads, cfg.n_layers, cfg.n_ctx, cfg.d_vocab) == (
        raw["hidden_size"], raw["intermediate_size"], raw["num_attention_heads"],
        raw["num_hidden_layers"], raw["max_position_embeddings"], raw["vocab_size"],
    )  # fmt: skip
    assert cfg.act_fn == "silu"
    rotary = Rotary(rope=rope, dims=cfg.d_head)
    assert all(layer.attn.rotary == rotary for layer in cfg.blocks)
    # As transformers 5 saves the same model again.
    scaling = raw.get("rope_scaling") or {}
    old = {"rope_scaling", "rope_theta", "torch_dtype"}
    new = {key: value for key, value in raw.items() if key not in old} | {"dtype": "bfloat16"}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    rest = {key: value for key, value in scaling.items() if key != "type"}
    parameters = rest | {"rope_theta": raw.get("rope_theta", 10_000.0), "rope_type": kind}
    assert parse(new | {"rope_parameters": parameters}) == cfg
