"""RWKV checkpoints of BlinkDL's converted: names, refusals, and folders that run as they should.

What needs torch is skipped without it. The names below are written out from BlinkDL's code.
"""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref.blinkdl import Conversion, plan_conversion
from mi_ref.checkpoint import Source, read_checkpoint
from mi_ref.cli import main
from mi_ref.convert_rwkv import convert_rwkv
from mi_ref.errors import HubError, WeightError
from mi_ref.hub import find_checkpoint
from mi_ref.weights import TensorInfo, Weights

Shapes = dict[str, tuple[int, ...]]
V, C, H, N, F, LAYERS = 11, 6, 2, 3, 14, 2  # the letters of BlinkDL's code


def norm(name: str) -> Shapes:
    return {f"{name}.weight": (C,), f"{name}.bias": (C,)}


def whole(attention: Callable[[int], Shapes], ffn: Shapes) -> Shapes:
    """Names and shapes of a whole ``.pth`` file."""
    shapes = {"emb.weight": (V, C), **norm("blocks.0.ln0")}
    for i in range(LAYERS):
        shapes |= {**norm(f"blocks.{i}.ln1"), **norm(f"blocks.{i}.ln2")}
        shapes |= {f"blocks.{i}.att.{name}": shape for name, shape in attention(i).items()}
        shapes |= {f"blocks.{i}.ffn.{name}": shape for name, shape in ffn.items()}
    return {**shapes, **norm("ln_out"), "head.weight": (V, C)}


def x060() -> Shapes:
    attention = {
        **{f"time_maa_{name}": (1, 1, C) for name in ("x", "w", "k", "v", "r", "g")},
        "time_maa_w1": (C, 20), "time_maa_w2": (5, 4, C),
        "time_decay": (1, 1, C), "time_decay_w1": (C, 5), "time_decay_w2": (5, C),
        "time_faaaa": (H, N), **norm("ln_x"),
        **{f"{m}.weight": (C, C) for m in ("receptance", "key", "value", "output", "gate")},
    }  # fmt: skip
    ffn = {"time_maa_k": (1, 1, C), "time_maa_r": (1, 1, C), "receptance.weight": (C, C)}
    return whole(lambda _: attention, {**ffn, "key.weight": (F, C), "value.weight": (C, F)})


def x070() -> Shapes:
    def attention(layer: int) -> Shapes:
        ranks = {"w": 4, "a": 5, "g": 8} | ({"v": 7} if layer else {})
        return {
            **{f"x_{name}": (1, 1, C) for name in ("r", "w", "k", "v", "a", "g")},
            **{f"{name}0": (1, 1, C) for name in ranks if name != "g"},
            **{f"{name}1": (C, rank) for name, rank in ranks.items()},
            **{f"{name}2": (rank, C) for name, rank in ranks.items()},
            "k_k": (1, 1, C), "k_a": (1, 1, C), "r_k": (H, N), **norm("ln_x"),
            **{f"{m}.weight": (C, C) for m in ("receptance", "key", "value", "output")},
        }  # fmt: skip

    return whole(attention, {"x_k": (1, 1, C), "key.weight": (F, C), "value.weight": (C, F)})


FILES = {6: x060, 7: x070}


def plan(shapes: Shapes, dtype: str = "BF16") -> Conversion:
    return plan_conversion(
        {name: TensorInfo(dtype, shape) for name, shape in shapes.items()}, source="model.pth"
    )


def names(found: Conversion) -> dict[str, str]:
    return {move.old: move.new for move in found.moves}


def refusal(shapes: Shapes, dtype: str = "BF16") -> str:
    with pytest.raises(WeightError) as caught:
        plan(shapes, dtype)
    return str(caught.value)


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
        (["time_mix_k", "time_decay", "time_first"], "model.pth is RWKV-4;"),
        (["time_mix_k", "time_decay", "ln_x.weight"], "model.pth is RWKV-5;"),
        (["time_mix_k", "time_decay", "ln_x.weight", "gate.weight"], "is RWKV-5.1 or 5.2;"),
        (["qkv.weight"], "its first names: blocks.0.att.qkv.weight. Pass the .pth"),
        ([], "its first names: none at all."),
    ],
)
def test_other_versions_are_refused_by_name(held: list[str], said: str) -> None:
    assert said in refusal({f"blocks.0.att.{name}": (C,) for name in held})


@pytest.mark.parametrize("version", FILES)
def test_all_faults_are_listed_at_once(version: int) -> None:
    shapes = FILES[version]()
    del shapes["ln_out.bias"]
    del shapes["blocks.1.att.key.weight"]
    shapes |= {"head.weight": (V, C + 1), "blocks.1.ffn.s_emb.weight": (V, 2)}
    said = refusal(shapes)
    assert f"model.pth holds no plain RWKV-{version} (x0{version}0):\n" in said
    assert "\n  ln_out.bias is missing\n" in said
    assert "\n  blocks.1.att.key.weight is missing\n" in said
    assert "\n  head.weight is (11, 7); [d_vocab 11, d_model 6] was needed\n" in said
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
    assert "att.g1 is (6, 0); [d_model 6, d_gate] was needed" in refusal(x070() | empty)


def test_quantised_tensors_are_refused() -> None:
    said = refusal(x070(), "torch.int8")
    assert "emb.weight is stored as torch.int8; F64, F32, F16, BF16 can be read" in said


@pytest.mark.parametrize(
    ("out", "vocab", "error", "said"),
    [
        ("full", None, FileExistsError, "'full' is not empty: name a new folder"),
        ("file", None, FileExistsError, "'file' is a file"),
        ("none/out", None, FileNotFoundError, "there is no folder 'none'"),
        ("out", "file", WeightError, "looked for as rwkv_vocab_*.txt"),
        ("out", "rwkv_vocab_v1.txt", FileNotFoundError, "no vocabulary file 'rwkv_vocab_v1.txt'"),
    ],
)
def test_places_are_checked_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    out: str, vocab: str | None, error: type[Exception], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch", None)
    Path("full").mkdir()
    Path("full", "notes").touch()
    Path("file").touch()
    with pytest.raises(error, match=re.escape(said)):
        convert_rwkv("absent.pth", out, vocab=vocab)


@pytest.mark.parametrize(
    ("torch", "said"),
    [
        (None, r"needs torch, which is not installed: pip install 'mi_ref\[convert\]'"),
        (SimpleNamespace(__version__="2.5.1+cpu"), r"torch 2\.5\.1\+cpu can be made to run code"),
    ],
)
def test_torch_missing_or_unsafe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch: Any, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", torch)
    with pytest.raises(WeightError, match=said):
        convert_rwkv(tmp_path / "model.pth", tmp_path / "out")


@pytest.mark.parametrize("others", [["README.md"], ["config.json", "pytorch_model.bin"]])
def test_a_folder_of_rwkv_pickles_says_how_to_convert(tmp_path: Path, others: list[str]) -> None:
    folder = tmp_path / "my models"
    folder.mkdir()
    for name in ["RWKV-x070-World.pth", *others]:
        (folder / name).write_text("{}")
    with pytest.raises(WeightError, match="only as pickles") as caught:
        find_checkpoint(folder)
    path = str(folder / "RWKV-x070-World.pth")
    assert str(caught.value).endswith(f"\n    mi-ref convert-rwkv '{path}' RWKV-x070-World")
    assert "pip install 'mi_ref[convert]'" in str(caught.value)
    (folder / "model.safetensors").touch()
    if "config.json" in others:
        assert find_checkpoint(folder).weights == (folder / "model.safetensors",)
    else:
        with pytest.raises(HubError, match=r"lacks config\.json"):
            find_checkpoint(folder)


def test_a_repository_of_rwkv_pickles_says_how_to_fetch_and_convert() -> None:
    held = frozenset({"rwkv7-g1-0.4b.pth", "rwkv7-g1-0.1b.pth", "README.md"})
    source = Source("BlinkDL/rwkv7-g1", "the Hub repository", held, Path, revision="0" * 40)
    with pytest.raises(WeightError) as caught:
        read_checkpoint(source)
    assert "pickles (rwkv7-g1-0.1b.pth, rwkv7-g1-0.4b.pth)" in str(caught.value)
    assert str(caught.value).splitlines()[1:] == [
        "    hf download BlinkDL/rwkv7-g1 rwkv7-g1-0.1b.pth --local-dir .",
        "    mi-ref convert-rwkv rwkv7-g1-0.1b.pth rwkv7-g1-0.1b",
    ]


def test_a_pth_file_itself_says_how_to_convert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "rwkv-final.pth"
    path.touch()
    with pytest.raises(WeightError, match=r"rwkv-final\.pth' is a pickle\. Reading a pickle can"):
        mi_ref.from_pretrained(path)
    assert main(["inspect", str(path)]) == 1
    assert f"mi-ref convert-rwkv {path} rwkv-final" in capsys.readouterr().err
    other = path.rename(tmp_path / "model.pth")
    with pytest.raises(HubError, match="is a file; pass the folder"):
        mi_ref.from_pretrained(other)


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
    """The file is written here, tensor by tensor; safetensors must find no fault with it."""
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
    """Makes a folder when it is unpickled by anyone who does not look."""

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
    with pytest.raises(WeightError, match="holds more than tensors") as caught:
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
        ({"step": 3, "model": {"w": torch.zeros(1)}}, r"by name: step \(int\), model \(dict\)"),
        ([torch.zeros(1)], r"by name: the file itself \(list\)"),
        ({"w": torch.zeros(1)}, "none of BlinkDL's names"),
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
    from golden.rwkv_configs import Sizes
    from golden.rwkv_reference import Eps, forward
    from golden.rwkv_weights import random_weights

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
