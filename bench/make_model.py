"""Write a LLaMA checkpoint of random weights, with a tokenizer, as the Hub would hold it.

Times depend on shapes and on the size of the tokenizer, not on trained values, so nothing has to
be downloaded::

    python -m bench.make_model --shape 135m
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

# Published architectures: HuggingFaceTB/SmolLM-135M and meta-llama/Llama-3.2-1B.
_COMMON: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "rms_norm_eps": 1e-5,
    "head_dim": 64,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "use_cache": True,
}
SHAPES: dict[str, dict[str, Any]] = {
    "135m": {
        **_COMMON,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
    },
    "1b": {
        **_COMMON,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
    },
}
DTYPES = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}


def cached_model(shape: str = "135m", dtype: str = "float32") -> Path:
    """Return the folder of a checkpoint in the user's cache; write it the first time."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "mi_ref-bench" / f"{shape}-{dtype}"
    if not (folder / "config.json").exists():
        make_model(folder, shape, dtype)
    return folder


def make_model(folder: Path, shape: str, dtype: str, seed: int = 0) -> None:
    """Write ``config.json``, ``model.safetensors`` and the tokenizer's files into `folder`.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.
    shape : str
        Key of `SHAPES`.
    dtype : {"float32", "bfloat16"}
        Of the stored weights.
    seed : int
        Of the weights and of the tokenizer's merges.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = SHAPES[shape]
    write_weights(folder / "model.safetensors", config, dtype, seed)
    write_tokenizer(folder, config["vocab_size"], seed)
    # Last, because its presence says that the folder is complete.
    text = json.dumps({**config, "torch_dtype": dtype}, indent=2)
    (folder / "config.json").write_text(text, encoding="utf-8")


def tensor_shapes(config: dict[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield every tensor's name and shape; the unembedding is the embedding."""
    d_model, d_mlp = config["hidden_size"], config["intermediate_size"]
    d_query = config["num_attention_heads"] * config["head_dim"]
    d_key = config["num_key_value_heads"] * config["head_dim"]
    yield "model.embed_tokens.weight", (config["vocab_size"], d_model)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", (d_model,)
        yield prefix + "self_attn.q_proj.weight", (d_query, d_model)
        yield prefix + "self_attn.k_proj.weight", (d_key, d_model)
        yield prefix + "self_attn.v_proj.weight", (d_key, d_model)
        yield prefix + "self_attn.o_proj.weight", (d_model, d_query)
        yield prefix + "post_attention_layernorm.weight", (d_model,)
        yield prefix + "mlp.gate_proj.weight", (d_mlp, d_model)
        yield prefix + "mlp.up_proj.weight", (d_mlp, d_model)
        yield prefix + "mlp.down_proj.weight", (d_model, d_mlp)
    yield "model.norm.weight", (d_model,)


def write_weights(path: Path, config: dict[str, Any], dtype: str, seed: int) -> None:
    """Write the safetensors file tensor by tensor, so that large shapes need little memory."""
    label, width = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in tensor_shapes(config):
        start, end = end, end + int(np.prod(shape)) * width
        header[name] = {"dtype": label, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)  # data begins at a multiple of 64
    rng = np.random.default_rng(seed)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in tensor_shapes(config):
            # Near what training gives: activations stay of order one through all layers, with no
            # subnormal or infinite number that would take a processor longer.
            values = rng.standard_normal(shape, dtype=np.float32)
            values = 1 + 0.1 * values if len(shape) == 1 else 0.02 * values
            values = values.astype(np.float32)
            file.write((values if dtype == "float32" else _bfloat16_bits(values)).tobytes())


def _bfloat16_bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Round to the nearest bfloat16, which NumPy lacks: the upper half of a float32."""
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def write_tokenizer(folder: Path, n_tokens: int, seed: int) -> None:
    """Write a byte-level BPE tokenizer whose merges are random pairs of letters and of merges.

    Only letters merge: a run of digits is one token per digit, in every shape.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate(["<|endoftext|>", *alphabet])}
    pieces = ["Ġ", *"abcdefghijklmnopqrstuvwxyz"]
    merges: list[tuple[str, str]] = []
    rng = np.random.default_rng(seed)
    while len(vocab) < n_tokens:
        for left, right in rng.integers(len(pieces), size=(n_tokens, 2)).tolist():
            first, second = pieces[left], pieces[right]
            merged = first + second
            # A space only begins a word, and words have an end.
            if "Ġ" in second or len(merged) > 10 or merged in vocab or len(vocab) == n_tokens:
                continue
            vocab[merged] = len(vocab)
            merges.append((first, second))
            pieces.append(merged)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    text = json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **special}, indent=2)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--shape", choices=SHAPES, default="135m")
    parser.add_argument("--dtype", choices=DTYPES, default="float32", help="of the stored weights")
    parser.add_argument("--out", type=Path, help="folder; default: in the user's cache")
    args = parser.parse_args()
    if args.out is not None:
        make_model(args.out, args.shape, args.dtype)
    print(args.out or cached_model(args.shape, args.dtype))


if __name__ == "__main__":
    main()
