"""Checkpoint files: exact decoding without copies, and every fault that a file can have."""

from __future__ import annotations

import json
import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import mi_ref
from mi_ref import Model, WeightError
from mi_ref.checkpoints.safetensors import Weights

RNG = np.random.default_rng(0)
STORED = {"F64": np.float64, "F32": np.float32, "F16": np.float16}


def write(path: Path, header: Mapping[str, Any], data: bytes = b"") -> Path:
    """Write a safetensors file as given, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def entry(dtype: str, shape: list[int], start: int, stop: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


@pytest.mark.parametrize("stored", STORED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_are_exact(stored: str, dtype: str, tmp_path: Path) -> None:
    array = RNG.normal(size=(3, 5)).astype(STORED[stored])
    save_file({"w": array}, tmp_path / "m.safetensors")
    loaded = Weights([tmp_path / "m.safetensors"]).load("w", dtype)
    assert loaded.dtype == np.dtype(dtype)
    # Only float64 read as float32 is rounded.
    assert np.array_equal(loaded, array.astype(dtype))


def test_every_finite_bfloat16_is_exact(tmp_path: Path) -> None:
    bits = np.arange(1 << 16, dtype="<u2")
    bits = bits[(bits & 0x7F80) != 0x7F80]
    header = {"w": entry("BF16", [bits.size], 0, bits.nbytes)}
    path = write(tmp_path / "m.safetensors", header, bits.tobytes())
    # By its definition: sign, 8 bits of exponent, 7 of fraction.
    fraction, exponent = (bits & 0x7F) / 128.0, ((bits >> 7) & 0xFF).astype(int)
    value = np.where(
        exponent == 0, np.ldexp(fraction, -126), np.ldexp(1 + fraction, exponent - 127)
    )
    value = np.where(bits >> 15, -value, value)
    for dtype in ("float32", "float64"):
        assert np.array_equal(Weights([path]).load("w", dtype), value)


def test_what_needs_no_decoding_is_not_copied(tmp_path: Path) -> None:
    array = RNG.normal(size=(4, 6)).astype(np.float32)
    save_file({"a": array, "b": array + 1}, tmp_path / "m.safetensors")
    weights = Weights([tmp_path / "m.safetensors"])
    one, two = weights.load("b", "float32"), weights.load("b", "float32")
    assert np.shares_memory(one, two)
    assert not one.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        one[0, 0] = 0.0
    assert not np.shares_memory(weights.load("b", "float64"), weights.load("b", "float64"))


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    save_file({"s": np.array(2.5, np.float32), "e": np.zeros((0, 3), np.float32)},
              tmp_path / "m.safetensors")  # fmt: skip
    weights = Weights([tmp_path / "m.safetensors"])
    assert weights.load("s", "float32").shape == ()
    assert weights.load("s", "float64") == 2.5
    assert weights.load("e", "float32").shape == (0, 3)


W = {"w": entry("F32", [2], 0, 8)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not a complete safetensors file: it has 0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4\n",
         "Was the download interrupted, or is it a Git LFS pointer"),
        (struct.pack("<Q", 1 << 40) + b"{}", "announce a header of 1099511627776 bytes"),
        (struct.pack("<Q", 2) + b"[]", "is not that of a safetensors file"),
        (struct.pack("<Q", 4) + b"\xff\xfe{}", "is not that of a safetensors file"),
        (struct.pack("<Q", 9) + b'{"w": {}}', "is not that of a safetensors file: 'data_offsets'"),
    ],
)  # fmt: skip
def test_files_that_are_none(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightError, match=message):
        Weights([path])


@pytest.mark.parametrize(
    ("header", "n_bytes", "message"),
    [
        (W, 7, r"m\.safetensors is truncated: \d+ bytes, but its header needs \d+"),
        ({"a": entry("F32", [2], 0, 8), "b": entry("F32", [2], 4, 12)}, 12, "overlap"),
        ({"a": entry("F32", [2], 8, 0)}, 8, "ranges that overlap or run backwards"),
        ({"a": entry("F32", [2], -8, 0)}, 8, "expected whole numbers from 0 up, got .-8, 0."),
        ({"a": entry("F32", [3], 0, 8)}, 8,
         r"a in .*: expected 12 bytes for F32 \(3,\), got 8"),
        ({"a": entry("BF16", [2, 2], 0, 16)}, 16, "expected 8 bytes for BF16 .2, 2., got 16"),
        ({"a": {"dtype": "F32", "shape": [2]}}, 8, "not that of a safetensors file"),
        ({"a": entry("F32", [2], 0, 8) | {"data_offsets": [0, 8, 9]}}, 8,
         "not that of a safetensors file"),
        ({"a": entry("F32", [2], 0, 8) | {"shape": ["2"]}}, 8, "not that of a safetensors file"),
        ({"a": entry("F32", [-2, -1], 0, 8)}, 8, "expected whole numbers from 0 up, got .-2, -1."),
        ({"a": entry("F32", [2], 0, 8) | {"data_offsets": ["0", "8"]}}, 8,
         "not that of a safetensors file"),
    ],
)  # fmt: skip
def test_headers_that_do_not_add_up(
    header: dict[str, Any], n_bytes: int, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "m.safetensors", header, bytes(n_bytes))
    with pytest.raises(WeightError, match=message):
        Weights([path])


@pytest.mark.parametrize("dtype", ["F8_E4M3", "I8", "I64", "BOOL"])
def test_dtypes_that_hold_no_plain_weights(dtype: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"q": entry(dtype, [8], 0, 8)}, bytes(8))
    with pytest.raises(WeightError, match=f"q is stored as {dtype}; .*F64, F32, F16, BF16.*Quant"):
        Weights([path]).load("q", "float32")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(bad: float, tmp_path: Path) -> None:
    array = np.ones((3, 4), dtype=np.float16)
    array[1, 2] = bad
    save_file({"w": array}, tmp_path / "m.safetensors")
    with pytest.raises(
        WeightError, match=rf"w has 1 NaN or infinite values \(first: flat index 6, {bad}\)"
    ):
        Weights([tmp_path / "m.safetensors"]).load("w", "float32")


def test_finite_values_whose_sum_overflows(tmp_path: Path) -> None:
    array = np.full(9, np.finfo(np.float32).max, dtype=np.float32)
    save_file({"w": array}, tmp_path / "m.safetensors")
    assert np.array_equal(Weights([tmp_path / "m.safetensors"]).load("w", "float32"), array)


def test_shards_and_index(tmp_path: Path) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    save_file({"a": np.ones(2, np.float32)}, one)
    save_file({"b": np.ones(3, np.float32)}, two)
    weights = Weights([one, two], {"a": "one.safetensors", "b": "two.safetensors"})
    assert {name: info.shape for name, info in weights.info.items()} == {"a": (2,), "b": (3,)}
    wrong = {"a": "two.safetensors", "b": "two.safetensors", "c": "one.safetensors"}
    with pytest.raises(WeightError, match=r"disagree\. a: .*two\..*in one\..*; c: .* nowhere"):
        Weights([one, two], wrong)
    save_file({"a": np.ones(2, np.float32)}, two)
    with pytest.raises(WeightError, match=r"a is in both one\.safetensors and two\.safetensors"):
        Weights([one, two])


@pytest.fixture
def copy(repository: Path, tmp_path: Path) -> Any:
    """Write a copy of a golden model's folder with changed tensors."""

    def write_copy(case: str, change: Any = None, shards: int = 1) -> Path:
        source = Weights([repository / "golden" / "data" / case / "model.safetensors"])
        tensors = {name: source.load(name, "float32") for name in source.info}
        if change:
            change(tensors)
        (tmp_path / "config.json").write_text(
            (repository / "golden" / "data" / case / "config.json").read_text()
        )
        if shards == 1:
            save_file(tensors, tmp_path / "model.safetensors")
            return tmp_path
        files = {name: f"model-{n % shards}.safetensors" for n, name in enumerate(tensors)}
        for file in set(files.values()):
            save_file({n: t for n, t in tensors.items() if files[n] == file}, tmp_path / file)
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": files}))
        return tmp_path

    return write_copy


def logits(model: Model) -> Any:
    return model.run([1, 2, 3]).logits


@pytest.mark.bits
def test_shards_give_the_same_model(copy: Any, repository: Path) -> None:
    whole = mi_ref.from_pretrained(repository / "golden" / "data" / "llama2")
    assert np.array_equal(logits(mi_ref.from_pretrained(copy("llama2", shards=3))), logits(whole))


def test_all_tensors_that_do_not_fit_are_listed(copy: Any) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        del tensors["model.norm.weight"]
        tensors["model.layers.0.self_attn.k_proj.weight"] = np.zeros((24, 24), np.float32)
        tensors["model.layers.0.self_attn.q_norm.weight"] = np.zeros(6, np.float32)
        tensors["model.layers.2.input_layernorm.weight"] = np.zeros(24, np.float32)

    with pytest.raises(WeightError) as refusal:
        mi_ref.from_pretrained(copy("llama2", spoil))
    for line in (
        "model.norm.weight is missing: expected (24,) = (d_model 24)",
        "model.layers.0.self_attn.k_proj.weight has shape (24, 24); the config requires (12, 24) ="
        " (n_key_value_heads 2 × d_head 6, d_model 24)",
        "model.layers.0.self_attn.q_norm.weight (6,) is not used by this architecture",
        "model.layers.2.input_layernorm.weight (24,) is not used by this architecture",
    ):
        assert line in str(refusal.value)


def test_a_bias_that_the_config_does_not_announce(copy: Any) -> None:
    def add(tensors: dict[str, Any]) -> None:
        tensors["model.layers.0.self_attn.q_proj.bias"] = np.zeros(24, np.float32)

    with pytest.raises(WeightError, match=re.escape("q_proj.bias (24,) is not used")):
        mi_ref.from_pretrained(copy("llama2", add))


@pytest.mark.bits
def test_old_rotary_frequencies_are_ignored(copy: Any, repository: Path) -> None:
    def add(tensors: dict[str, Any]) -> None:
        for layer in range(2):
            name = f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"
            tensors[name] = np.zeros(3, np.float32)

    whole = mi_ref.from_pretrained(repository / "golden" / "data" / "llama2")
    assert np.array_equal(logits(mi_ref.from_pretrained(copy("llama2", add))), logits(whole))


@pytest.mark.bits
def test_a_tied_model_with_its_own_unembedding_uses_that(copy: Any) -> None:
    def add(tensors: dict[str, Any]) -> None:
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * 2

    tied = mi_ref.from_pretrained(copy("llama-tied"))
    assert tied.params.unembed.weight is tied.params.embed
    wanted = logits(tied) * 2
    # The same file, which the first model maps into memory: not to be read after this.
    own = mi_ref.from_pretrained(copy("llama-tied", add))
    assert np.array_equal(logits(own), wanted)


# Not ru_maxrss, which a new process inherits from the one that started it.
MEASURE = """
import re, sys, mi_ref
def peak():
    return int(re.search(r"VmHWM:\\s*(\\d+) kB", open("/proc/self/status").read())[1])
# A small one first: the code that loading imports is none of the model's memory.
mi_ref.from_pretrained(sys.argv[2])
before = peak()
model = mi_ref.from_pretrained(sys.argv[1])
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux' /proc")
def test_loading_takes_the_memory_of_the_model_once(repository: Path, tmp_path: Path) -> None:
    config = {"model_type": "llama", "hidden_size": 512, "intermediate_size": 1024,
              "num_attention_heads": 8, "num_hidden_layers": 4, "vocab_size": 4096}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shapes = {"model.embed_tokens.weight": [4096, 512], "lm_head.weight": [4096, 512],
              "model.norm.weight": [512]}  # fmt: skip
    for layer in range(4):
        prefix = f"model.layers.{layer}."
        shapes |= {f"{prefix}self_attn.{p}_proj.weight": [512, 512] for p in "qkvo"}
        shapes |= {f"{prefix}mlp.{p}_proj.weight": [1024, 512] for p in ("gate", "up")}
        shapes |= {f"{prefix}mlp.down_proj.weight": [512, 1024]}
        shapes |= {f"{prefix}{p}_layernorm.weight": [512] for p in ("input", "post_attention")}
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = entry("BF16", shape, end, end + size)
        end += size
    ones = np.full(end // 2, 0x3F80, dtype="<u2").tobytes()
    write(tmp_path / "model.safetensors", header, ones)
    used = subprocess.run(
        [
            sys.executable,
            "-c",
            MEASURE,
            str(tmp_path),
            str(repository / "golden" / "data" / "llama2"),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    in_float32 = 2 * end
    assert in_float32 > 50e6
    assert in_float32 <= int(used.stdout) * 1024 <= 1.5 * in_float32
