"""A small World vocabulary, its configurations, and tokenizers made of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_ref.tokenizer import Tokenizer

FILE = "rwkv_vocab_v1.txt"
# "ab" and "abcde" without "abc" or "abcd": a match that goes too far has to go back.
WORDS = [" Paris", "is", "é", "🦙", "\n\n", "  ", "ab", "abcde", "it's \"", "<|", "\x80", "endo"]
PIECES = [*(bytes([byte]) for byte in range(256)), *map(str.encode, WORDS), b" \xf0\x9f"]
TOKENS = dict(enumerate(PIECES, 1))
IDS = {token: id for id, token in TOKENS.items()}
END = "<|rwkv_tokenizer_end_of_text|>"
# What converted checkpoints on the Hub have.
GOOSE = {
    "add_bos_token": False,
    "added_tokens_decoder": {"0": {"content": END, "lstrip": False, "special": True}},
    "bos_token": END, "eos_token": "\n\n", "pad_token": END, "unk_token": END,
}  # fmt: skip


def written(folder: Path, tokens: Mapping[int, bytes] = TOKENS) -> Path:
    """Write a vocabulary in the real format: text where the bytes are valid text, else bytes."""
    lines = []
    for id, token in tokens.items():
        try:
            literal = repr(token.decode())
        except UnicodeDecodeError:
            literal = repr(token)
        lines.append(f"{id} {literal} {len(token)}\n")
    path = folder / FILE
    path.write_bytes("".join(lines).encode())
    return path


def tokenizer(
    folder: Path,
    config: Mapping[str, Any] | None = None,
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
) -> Tokenizer:
    path = None
    if config is not None:
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_files(
        None, path, world=[written(folder)], source="tok", bos_id=bos_id, eos_id=eos_id
    )
