"""Small tokenizers of the common kinds, written to files, and invariants of every encoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mi_ref.encoding import Encoding
from mi_ref.tokenizer import Tokenizer

BOS = "<|bos|>"


def template(prefix: dict[str, int], suffix: dict[str, int] | None = None) -> dict[str, Any]:
    def special(name: str) -> dict[str, Any]:
        return {"SpecialToken": {"id": name, "type_id": 0}}

    suffix = suffix or {}
    single = [*map(special, prefix), {"Sequence": {"id": "A", "type_id": 0}}, *map(special, suffix)]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [id], "tokens": [name]}
            for name, id in (prefix | suffix).items()
        },
    }


def byte_level_spec() -> dict[str, Any]:
    """256 bytes, the merges of " Paris", "é" and half an emoji, two special tokens."""
    from tokenizers import AddedToken, Tokenizer as Backend, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "r"), ("i", "s"), ("Ġ", "P"), ("ĠP", "ar"), ("ĠPar", "is"), ("Ã", "©")]
    merges += [("Ġ", "ð"), ("Ġð", "Ł")]
    pieces = [*alphabet, *(left + right for left, right in merges)]
    backend = Backend(models.BPE({p: n for n, p in enumerate(pieces)}, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(BOS), AddedToken("<|end|>")])
    return dict(json.loads(backend.to_str()))


def metaspace_spec() -> dict[str, Any]:
    """Specials, 256 byte pieces, and single characters with the merges of "▁Paris"."""
    specials = ["<unk>", "<s>", "</s>"]
    merges = [("a", "r"), ("i", "s"), ("▁", "P"), ("▁P", "ar"), ("▁Par", "is"), ("i", "n")]
    pieces = [*specials, *(f"<0x{b:02X}>" for b in range(256)), *"▁Parisné"]
    pieces = list(dict.fromkeys([*pieces, *(left + right for left, right in merges)]))
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": n, "content": s, "special": True, "normalized": False}
            | dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
            for n, s in enumerate(specials)
        ],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "▁"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
            ],
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "post_processor": template({"<s>": 1}),
        "model": {
            "type": "BPE",
            "vocab": {piece: n for n, piece in enumerate(pieces)},
            "merges": [list(merge) for merge in merges],
            "unk_token": "<unk>",
            "byte_fallback": True,
            "fuse_unk": True,
        },
    }


def written(
    folder: Path,
    spec: dict[str, Any],
    config: dict[str, Any] | None = None,
    *,
    bos_id: int | None = None,
    eos_id: int | None = None,
) -> Tokenizer:
    path, config_path = folder / "tokenizer.json", None
    path.write_text(json.dumps(spec), encoding="utf-8")
    if config is not None:
        config_path = folder / "tokenizer_config.json"
        config_path.write_text(json.dumps(config), encoding="utf-8")
    return Tokenizer.from_files(path, config_path, source="tok", bos_id=bos_id, eos_id=eos_id)


def assert_spans_agree(encoding: Encoding, *, tiled: bool) -> None:
    """Byte spans lie within char spans; tiled: together they are the text, once."""
    raw, joined = encoding.text.encode(), b""
    for chars, span in zip(encoding.char_spans, encoding.byte_spans, strict=True):
        if chars is None or span is None:
            assert chars is span is None
            continue
        before, inside = encoding.text[: chars[0]].encode(), encoding.text[slice(*chars)].encode()
        assert len(before) <= span[0] <= span[1] <= len(before) + len(inside)
        joined += raw[slice(*span)]
    if tiled:
        assert joined == raw
