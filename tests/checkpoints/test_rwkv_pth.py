"""Conversion of BlinkDL's RWKV checkpoints: the written files, faulty files, the command.

Tests that need torch are skipped without it.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref.checkpoints.rwkv_pth import convert_rwkv
from mi_ref.checkpoints.safetensors import Weights
from mi_ref.cli import main
from mi_ref.errors import WeightError
from tests.fixtures.blinkdl_files import FILES, C, Shapes, V, names, plan, x070


@pytest.fixture
def torch() -> Any:
    return pytest.importorskip("torch")


@pytest.fixture
def save(torch: Any, tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """Write a ``.pth`` file of random numbers in bfloat16, some of it in float32."""

    def write(shapes: Shapes) -> tuple[Path, dict[str, Any]]:
        generator = torch.Generator().manual_seed(0)
        tensors = {
            name: torch.randn(shape, generator=generator, dtype=torch.float32).to(
                torch.float32 if ".ln" in name else torch.bfloat16
            )
            for name, shape in shapes.items()
        }
        torch.save(tensors, tmp_path / "rwkv.pth")
        return tmp_path / "rwkv.pth", tensors

    return write


@pytest.mark.parametrize("version", FILES)
def test_numbers_and_dtypes_stay(save: Any, tmp_path: Path, version: int) -> None:
    path, tensors = save(FILES[version]())
    out = tmp_path / "out"
    assert convert_rwkv(path, out) == out
    assert sorted(file.name for file in out.iterdir()) == ["config.json", "model.safetensors"]
    found, made = plan(FILES[version]()), Weights([out / "model.safetensors"])
    assert set(made.info) == set(names(found).values())
    assert {info.dtype for info in made.info.values()} == {"BF16", "F32"}
    for move in found.moves:
        old = tensors[move.old].float().numpy()
        new = made.load(move.new, "float32")
        np.testing.assert_array_equal(new, (old.T if move.transposed else old).reshape(new.shape))
        assert made.info[move.new].dtype == ("F32" if ".ln" in move.old else "BF16")


def test_the_library_reads_what_was_written(save: Any, tmp_path: Path, torch: Any) -> None:
    """The converter writes the file itself, tensor by tensor; safetensors must accept it."""
    from safetensors.torch import load_file

    path, tensors = save(x070())
    held = load_file(convert_rwkv(path, tmp_path / "out") / "model.safetensors")
    assert torch.equal(held["model.layers.1.attn.v_lora.lora.0.weight"],
                       tensors["blocks.1.att.v1"].T)  # fmt: skip
    header = (tmp_path / "out" / "model.safetensors").read_bytes()[8:]
    entries, _ = json.JSONDecoder().raw_decode(header.split(b"\0")[0].decode(errors="replace"))
    starts = [(e["dtype"], e["data_offsets"][0]) for e in entries.values() if "dtype" in e]
    assert all(start % {"F32": 4, "BF16": 2}[dtype] == 0 for dtype, start in starts)


def test_the_vocabulary_goes_along_and_ends_texts(save: Any, tmp_path: Path) -> None:
    path, _ = save(x070())
    vocab = tmp_path / "rwkv_vocab_v1.txt"
    vocab.write_text("1 'a' 1\n")
    ids = []
    for out, given in (("with", vocab), ("without", None)):
        folder = convert_rwkv(path, tmp_path / out, vocab=given)
        assert (folder / vocab.name).exists() == (given is not None)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        ids.append((config["bos_token_id"], config["eos_token_id"]))
    assert ids == [(None, 0), (None, None)]
    assert mi_ref.from_pretrained(tmp_path / "with").to_tokens("aa").tolist() == [[1, 1]]


def test_an_empty_folder_is_filled(save: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    convert_rwkv(save(x070())[0], out)
    assert (out / "model.safetensors").is_file()


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_half_done_is_left(
    save: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exists: bool
) -> None:
    path, _ = save(x070())
    vocab = tmp_path / "rwkv_vocab_v1.txt"
    vocab.touch()
    if exists:
        (tmp_path / "out").mkdir()
    before = sorted(tmp_path.rglob("*"))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copyfile", interrupt)
    with pytest.raises(KeyboardInterrupt):
        convert_rwkv(path, tmp_path / "out", vocab=vocab)
    assert sorted(tmp_path.rglob("*")) == before


class Hidden:
    """Makes a folder when it is unpickled without checks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_pickle_does_not_run(torch: Any, tmp_path: Path, kind: str) -> None:
    path, trap = tmp_path / "rwkv.pth", tmp_path / "trap"
    held = {"emb.weight": torch.zeros(V, C), "blocks.0.att.r_k": Hidden(trap)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(Hidden(trap)))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=kind == "zip")
    with pytest.raises(WeightError, match="contains more than tensors") as caught:
        convert_rwkv(path, tmp_path / "out")
    assert "weights_only" not in str(caught.value)  # torch's advice to load it nevertheless
    assert not trap.exists()
    assert not (tmp_path / "out").exists()
    if kind == "pickle":
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trap.is_dir()  # so it was armed


@pytest.mark.parametrize(
    "content", [b"", b"hello world", b"version https://git-lfs.github.com/spec/v1\n", None]
)
def test_damaged_files(save: Any, tmp_path: Path, content: bytes | None) -> None:
    path, _ = save(x070())
    whole_file = path.read_bytes()
    path.write_bytes(whole_file[: len(whole_file) // 2] if content is None else content)
    with pytest.raises(WeightError, match=r"rwkv\.pth cannot be read .*interrupted download"):
        convert_rwkv(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_files_of_something_else(torch: Any, tmp_path: Path) -> None:
    path = tmp_path / "rwkv.pth"
    for held, said in (
        (
            {"step": 3, "model": {"w": torch.zeros(1)}},
            r"tensors: step \(int\), model \(dict\)",
        ),
        ([torch.zeros(1)], r"named tensors: the file itself \(list\)"),
        ({"w": torch.zeros(1)}, "expected BlinkDL's names"),
    ):
        torch.save(held, path)
        with pytest.raises(WeightError, match=said):
            convert_rwkv(path, tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        convert_rwkv(tmp_path / "absent.pth", tmp_path / "out")


@pytest.mark.parametrize(("version", "norm_first"), [(6, True), (7, True), (7, False)])
def test_the_model_computes_what_the_file_means(
    torch: Any, tmp_path: Path, version: int, norm_first: bool
) -> None:
    """Against the formulas, which read BlinkDL's names themselves."""
    from golden.rwkv.configs import Sizes
    from golden.rwkv.reference import Eps, forward
    from golden.rwkv.weights import random_weights

    ranks = {"mix": 3, "decay": 5} if version == 6 else {"w": 3, "a": 5, "v": 2, "g": 7}
    sizes = Sizes(
        version=version, d_model=12, d_head=4, d_mlp=20, n_layers=3, d_vocab=17, ranks=ranks,
        norm_first=norm_first,
    )  # fmt: skip
    weights = random_weights(sizes, np.random.default_rng(version))
    held = {name: torch.from_numpy(x.copy()).bfloat16() for name, x in weights.items()}
    torch.save(held, tmp_path / "rwkv.pth")
    convert_rwkv(tmp_path / "rwkv.pth", tmp_path / "out")
    model = mi_ref.from_pretrained(tmp_path / "out", dtype="float64")
    tokens = [3, 14, 1, 5, 9, 2, 6]
    expected = forward(weights, [tokens], Eps(1e-5, 64e-5)).hooks["unembed.hook_out"]
    logits = np.asarray(model.run(tokens).logits)
    assert np.linalg.norm(logits - expected) <= 1e-12 * np.linalg.norm(expected)


@pytest.mark.parametrize("version", FILES)
def test_command(
    save: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], version: int
) -> None:
    path, _ = save(FILES[version]())
    out = tmp_path / "new model"
    assert main(["convert-rwkv", str(path), str(out)]) == 0
    said, err = capsys.readouterr()
    rows = dict(re.split(r" {2,}", line.strip(), maxsplit=1) for line in said.splitlines()[2:])
    count = sum(int(np.prod(shape)) for shape in FILES[version]().values())
    tensors = len(FILES[version]())
    assert (rows, err) == (
        {
            "version": f"RWKV-{version}",
            "layers": "2, d_model 6",
            "heads": "2, d_head 3",
            "vocabulary": "d_vocab 11",
            "parameters": f"{count:,} in {tensors} tensors, BF16, F32",
            "next": f"mi-ref inspect '{out}'",
        },
        "",
    )
    assert main(["convert-rwkv", str(path), str(out)]) == 1
    assert "is not empty: name a new folder" in capsys.readouterr().err


def test_command_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["convert-rwkv", "--help"])
    assert "example:\n  mi-ref convert-rwkv" in capsys.readouterr().out
