"""``mi-ref convert``: a folder of safetensors that gives the numbers of the GGUF file."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

import mi_ref
from mi_ref import ArgumentError
from mi_ref.checkpoints.gguf.convert import convert_gguf
from mi_ref.cli import main
from tests.fixtures.gguf_files import convert, make, read_folder, write

GOLDEN = Path(__file__).parents[3] / "golden/data"
CASES = (
    "gemma3", "gpt-neox-parallel", "gpt2", "llama-yarn", "llama3.1-rope", "mixtral", "phi",
    "phi3-longrope-long", "qwen3", "starcoder2-window",
)  # fmt: skip
TOKENS = [3, 1, 4, 1, 5, 9, 2, 6]
WORDS = ["<s>", "</s>", *"abcdefgh", "ab", "cd", "abcd"]


@pytest.mark.parametrize("case", CASES)
def test_logits_are_the_same(case: str, tmp_path: Path) -> None:
    path = make(GOLDEN / case, tmp_path / "model.gguf")
    made = convert_gguf(path, tmp_path / "out")
    loaded, original = mi_ref.from_pretrained(made.folder), mi_ref.from_pretrained(path)
    np.testing.assert_array_equal(loaded.run(TOKENS).logits, original.run(TOKENS).logits)
    assert made.inferred == original.cfg.inferred
    assert "no tokenizer" in str(made.tokenizer_problem)


def test_quantised_weights_and_the_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, tensors = read_folder(GOLDEN / "qwen2")
    metadata, stored = convert(config, tensors)
    size = stored["token_embd.weight"].shape[0]
    metadata |= {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": [*WORDS, *(f"<unused{n}>" for n in range(size - len(WORDS)))],
        "tokenizer.ggml.token_type": [3, 3, *[1] * (size - 2)],
        "tokenizer.ggml.merges": ["a b", "c d", "ab cd"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0].content }}",
    }
    half = dict.fromkeys([n for n in stored if "ffn_up" in n], gguf.GGMLQuantizationType.F16)
    path = write(tmp_path / "model.gguf", metadata, stored, kinds=half)
    out = tmp_path / "out"
    assert main(["convert", str(path), str(out)]) == 0
    assert "qwen2" in capsys.readouterr().out
    loaded, original = mi_ref.from_pretrained(out), mi_ref.from_pretrained(path)
    np.testing.assert_array_equal(loaded.run("abcdef").logits, original.run("abcdef").logits)
    for text in ("", "abcd", "a<s>b</s>", "hgfedcba"):
        assert loaded.tokenizer.encode(text) == original.tokenizer.encode(text)
    assert original.tokenizer.encode("abcde").ids == (0, 12, 6)
    assert loaded.tokenizer.bos_id == original.tokenizer.bos_id == 0
    assert loaded.tokenizer.eos_id == original.tokenizer.eos_id == 1
    chat = [{"role": "user", "content": "abc"}]
    assert loaded.tokenizer.render_chat(chat) == original.tokenizer.render_chat(chat) == "abc"


def test_a_folder_that_is_in_use(tmp_path: Path) -> None:
    path = make(GOLDEN / "llama2", tmp_path / "model.gguf")
    with pytest.raises(ArgumentError, match="is not empty: name a new folder"):
        convert_gguf(path, tmp_path)


def test_a_model_in_safetensors(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="is not in GGUF"):
        convert_gguf(GOLDEN / "llama2", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_nothing_is_left_of_a_failure(tmp_path: Path) -> None:
    metadata, tensors = convert(*read_folder(GOLDEN / "llama2"))
    tensors["output_norm.weight"] = tensors["output_norm.weight"] * np.float32(np.inf)
    path = write(tmp_path / "model.gguf", metadata, tensors)
    with pytest.raises(mi_ref.WeightError, match="NaN or infinite"):
        convert_gguf(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["model.gguf"]
