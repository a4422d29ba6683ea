"""Files that are no model in GGUF, damaged ones, and what cannot be read: one clear error each."""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import Distribution
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

import mi_ref
from mi_ref import ConfigError, HubError, MiRefError, TokenError, WeightError
from mi_ref.checkpoints.gguf import packages, types
from mi_ref.checkpoints.inspect import inspect_checkpoint
from tests.fixtures.gguf_files import convert, make, read_folder, write

LLAMA = Path(__file__).parents[3] / "golden/data/llama2"
COUNTS = 8
"""Where the number of tensors stands; the number of keys follows."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make(LLAMA, tmp_path / "model.gguf")


def refused(path: Path, kind: type[MiRefError], *parts: str) -> None:
    """Loading and inspecting refuse it alike."""
    for call in (mi_ref.from_pretrained, inspect_checkpoint):
        with pytest.raises(kind) as caught:
            call(path)
        for part in parts:
            assert part in str(caught.value)


def damage(path: Path, at: int, code: str, value: int) -> None:
    raw = bytearray(path.read_bytes())
    struct.pack_into(code, raw, at, value)
    path.write_bytes(raw)


def test_every_length_cut_short(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    lengths = [*range(1, 600, 7), *np.linspace(600, len(whole) - 1, 40).astype(int)]
    for length in lengths:
        cut = tmp_path / "cut.gguf"
        cut.write_bytes(whole[:length])
        with pytest.raises(WeightError, match=r"cut short|not a GGUF file"):
            mi_ref.from_pretrained(cut)
    path.write_bytes(b"")
    refused(path, WeightError, "is empty")


def test_any_byte_changed_is_refused_or_loads(path: Path) -> None:
    """Damage gives an error of the library, never another one."""
    whole = path.read_bytes()
    rng = np.random.default_rng(1)
    for at in rng.integers(0, 2000, 300):
        raw = bytearray(whole)
        raw[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(raw)
        with suppress(MiRefError):
            mi_ref.from_pretrained(path)


def test_another_format(path: Path) -> None:
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    refused(path, WeightError, "is not a GGUF file: it starts with b'vers'", "Git LFS pointer")


def test_another_version(path: Path) -> None:
    damage(path, 4, "<I", 1)
    refused(path, WeightError, "is version 1 of GGUF; expected 2 or 3")
    damage(path, 4, "<I", 4)
    refused(path, WeightError, "is version 4 of GGUF; expected 2 or 3")


def test_another_endianness(tmp_path: Path) -> None:
    metadata, tensors = convert(*read_folder(LLAMA))
    path = write(tmp_path / "big.gguf", metadata, tensors, endian=int(gguf.GGUFEndian.BIG))
    refused(path, WeightError, "is a big-endian GGUF file (version 3); expected little-endian")


@pytest.mark.parametrize(("at", "what"), [(COUNTS, "tensors"), (COUNTS + 8, "metadata keys")])
@pytest.mark.parametrize("count", [2**63, 2**40, 10**6])
def test_a_huge_declared_number(path: Path, at: int, what: str, count: int) -> None:
    damage(path, at, "<Q", count)
    refused(path, WeightError, f"it declares {count:,} {what}")


def test_a_huge_declared_string(path: Path) -> None:
    damage(path, COUNTS + 16, "<Q", 2**62)
    refused(path, WeightError, "of 4,611,686,018,427,387,904 bytes, but the file has")


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"general.architecture": "mamba9"}, ("architecture 'mamba9'", "expected one of llama")),
        ({"general.type": "adapter"}, ("is a LoRA adapter",)),
        ({"general.architecture": "clip"}, ("vision or audio part",)),
        ({"llama.block_count": 10**9}, ("llama.block_count is 1,000,000,000",)),
        ({"llama.block_count": None}, ("llama.block_count is missing",)),
        ({"llama.embedding_length": -1 & 0xFFFFFFFF}, ()),
        ({"llama.context_length": None}, ("its metadata lacks llama.context_length",)),
        ({"tokenizer.ggml.tokens": ["a"] * 900}, ("has 900 tokens, its embedding only 48 rows",)),
    ],
)
def test_metadata_that_cannot_be(
    changes: dict[str, Any], parts: tuple[str, ...], tmp_path: Path
) -> None:
    path = make(LLAMA, tmp_path / "model.gguf", **changes)
    if parts:
        refused(path, ConfigError, *parts)
    else:
        with pytest.raises(MiRefError):
            mi_ref.from_pretrained(path)
        assert inspect_checkpoint(path).refusals


@pytest.mark.parametrize("key", ["feed_forward_length", "attention.head_count_kv"])
def test_metadata_that_contradicts_the_tensors(key: str, tmp_path: Path) -> None:
    path = make(LLAMA, tmp_path / "model.gguf", **{f"llama.{key}": 1})
    with pytest.raises(WeightError, match="has shape"):
        mi_ref.from_pretrained(path)
    assert any("has shape" in reason for reason in inspect_checkpoint(path).refusals)


def test_an_unknown_key_of_the_architecture(tmp_path: Path) -> None:
    path = make(LLAMA, tmp_path / "model.gguf", **{"llama.attention.new_trick": 2.5})
    with pytest.raises(ConfigError, match=r"llama\.attention\.new_trick"):
        mi_ref.from_pretrained(path)
    assert any("new_trick=2.5" in reason for reason in inspect_checkpoint(path).refusals)
    allowed = ["llama.attention.new_trick"]
    model = mi_ref.from_pretrained(path, allow_unread_config=allowed)
    assert model.cfg.unread_config == tuple(allowed)


@pytest.mark.parametrize(
    "name", ["blk.0.attn_new.weight", "rope_new.weight", "blk.0.ffn_gate_inp.weight"]
)
def test_an_unknown_tensor(name: str, tmp_path: Path) -> None:
    metadata, tensors = convert(*read_folder(LLAMA))
    extra = {name: np.zeros((4, 4), np.float32)}
    path = write(tmp_path / "model.gguf", metadata, {**tensors, **extra})
    with pytest.raises(WeightError, match=r"\(4, 4\) is not used"):
        mi_ref.from_pretrained(path)


def test_a_tensor_that_is_missing(tmp_path: Path) -> None:
    metadata, tensors = convert(*read_folder(LLAMA))
    del tensors["blk.1.attn_v.weight"]
    path = write(tmp_path / "model.gguf", metadata, tensors)
    with pytest.raises(WeightError, match=r"v_proj\.weight is missing"):
        mi_ref.from_pretrained(path)


def test_a_number_that_is_not_finite(tmp_path: Path) -> None:
    metadata, tensors = convert(*read_folder(LLAMA))
    tensors["output_norm.weight"] = tensors["output_norm.weight"] * np.float32(np.nan)
    path = write(tmp_path / "model.gguf", metadata, tensors)
    with pytest.raises(WeightError, match="NaN or infinite"):
        mi_ref.from_pretrained(path)


def test_a_type_that_the_package_does_not_know(path: Path) -> None:
    raw = path.read_bytes()
    name = b"blk.0.attn_norm.weight"
    at = raw.index(name) + len(name) + 4 + 8  # behind the number of axes and the one size
    damage(path, at, "<I", 77)
    refused(path, WeightError, "as type 77, which the installed package 'gguf' does not know")


def test_a_type_that_the_package_cannot_decode(path: Path) -> None:
    raw = path.read_bytes()
    name = b"blk.0.attn_norm.weight"
    damage(path, raw.index(name) + len(name) + 4 + 8, "<I", int(gguf.GGMLQuantizationType.I8))
    refused(path, WeightError, "is stored as I8, which the installed package 'gguf' cannot decode")


def test_without_the_package(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    types.package.cache_clear()
    types.stored_types.cache_clear()
    monkeypatch.setitem(sys.modules, "gguf", None)
    try:
        refused(path, WeightError, "needs the package 'gguf'", "pip install 'mi_ref[gguf]'")
    finally:
        types.package.cache_clear()
        types.stored_types.cache_clear()


def test_a_folder_with_several(path: Path) -> None:
    make(LLAMA, path.parent / "other.gguf")
    refused(path.parent, HubError, "holds 2 models in GGUF: model.gguf, other.gguf", "filename=")
    with pytest.raises(HubError, match=r"holds no 'third.gguf'; its GGUF files: model.gguf, other"):
        mi_ref.from_pretrained(path.parent, filename="third.gguf")
    assert mi_ref.from_pretrained(path.parent, filename="other.gguf").cfg.d_vocab == 48


def test_safetensors_are_preferred_in_a_folder(path: Path) -> None:
    for file in LLAMA.iterdir():
        (path.parent / file.name).write_bytes(file.read_bytes())
    assert mi_ref.from_pretrained(path.parent).cfg.inferred == ()
    assert mi_ref.from_pretrained(path.parent, filename=path.name).cfg.inferred


def test_a_revision_of_a_file(path: Path) -> None:
    with pytest.raises(HubError, match="only Hub repositories have revisions"):
        mi_ref.from_pretrained(path, revision="main")


def test_text_without_a_tokenizer(path: Path) -> None:
    model = mi_ref.from_pretrained(path)
    with pytest.raises(TokenError, match=r"it has no tokenizer\. Put the model's tokenizer.json"):
        model.run("text")
    assert "no tokenizer" in str(inspect_checkpoint(path).tokenizer.problem)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Install a package of files under a name."""

    def install(name: str, files: dict[str, Path], requires: tuple[str, ...] = ()) -> str:
        site = tmp_path / "site"
        info = site / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        needed = "".join(f"Requires-Dist: {other}\n" for other in requires)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needed}"
        )
        held = site / name
        held.mkdir()
        for file, source in files.items():
            (held / file).write_bytes(source.read_bytes())
        (info / "RECORD").write_text("".join(f"{name}/{file},,\n" for file in files))
        monkeypatch.syspath_prepend(str(site))
        return name

    return install


def test_a_package_with_one_none_or_two(package: Callable[..., str], path: Path) -> None:
    assert mi_ref.from_pretrained(package("mi-one", {"a.gguf": path})).cfg.d_vocab == 48
    with pytest.raises(HubError, match=r"package 'mi-none' 1.0 ships no .gguf file"):
        mi_ref.from_pretrained(package("mi-none", {"a.txt": path}))
    two = package("mi-two", {"a.gguf": path, "b.gguf": path})
    with pytest.raises(HubError, match=r"holds 2 models in GGUF: a\.gguf, b"):
        mi_ref.from_pretrained(two)
    assert mi_ref.from_pretrained(two, filename="b.gguf").cfg.d_vocab == 48
    with pytest.raises(HubError, match="given for the installed package 'mi-two'"):
        mi_ref.from_pretrained(two, revision="main")
    assert isinstance(packages._installed("mi-two"), Distribution)


def test_a_package_whose_pieces_are_in_others(package: Callable[..., str], path: Path) -> None:
    raw, half = path.read_bytes(), path.stat().st_size * 3 // 4
    for number, part in enumerate((raw[:half], raw[half:])):
        piece = path.parent / f"{number}"
        piece.write_bytes(part)
        package(f"mi-part{number}", {f"m.gguf.part0{number}": piece})
    whole = package("mi-whole", {}, ("mi-part0==1.0", "mi-part1==1.0"))
    model = mi_ref.from_pretrained(whole)
    np.testing.assert_array_equal(
        model.run([1, 2, 3]).logits, mi_ref.from_pretrained(path).run([1, 2, 3]).logits
    )
    lonely = package("mi-lonely", {}, ("mi-part1==1.0",))
    with pytest.raises(MiRefError):
        mi_ref.from_pretrained(lonely)
