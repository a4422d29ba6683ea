"""Tokenizer: ids as the checkpoint's own tokenizer gives them, exact places, plain refusals."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mi_ref.encoding import Encoding
from mi_ref.errors import TokenError
from mi_ref.tokenizer import Tokenizer

SHARED = Path(__file__).resolve().parents[2] / "shared"
HARD_STRINGS = [("gpt2", "gpt-2"), ("gpt-neox-20b", "mpt"), ("qwen2", "qwen2")]
BOS = "<|bos|>"


def shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"real tokenizers are not at ../shared/{'/'.join(parts)}")
    return path


@cache
def real(folder: str) -> Tokenizer:
    return Tokenizer.from_files(shared("tokenizers", folder, "tokenizer.json"), source=folder)


def stories() -> Tokenizer:
    folder = shared("models", "stories260K")
    return Tokenizer.from_files(
        folder / "tokenizer.json", folder / "tokenizer_config.json", source="stories260K"
    )


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


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    spec = byte_level_spec() | {"post_processor": template({BOS: 264})}
    return written(tmp_path_factory.mktemp("byte_level"), spec)


@pytest.fixture(scope="module")
def metaspace(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return written(tmp_path_factory.mktemp("metaspace"), metaspace_spec())


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


# Real tokenizers


@pytest.mark.parametrize(("folder", "cases"), HARD_STRINGS)
def test_hard_strings(folder: str, cases: str) -> None:
    tokenizer = real(folder)
    files = shared("tokenizers", "cases")
    texts = (files / f"ggml-vocab-{cases}.gguf.inp").read_bytes().decode()
    ids = (files / f"ggml-vocab-{cases}.gguf.out").read_text(encoding="utf-8").split("\n")
    pairs = list(zip(texts.split("\n__ggml_vocab_test__\n"), ids, strict=False))
    assert len(pairs) == 47
    for text, expected in pairs:
        encoding = tokenizer.encode(text)
        assert encoding.ids == tuple(map(int, expected.split())), text
        same = unicodedata.is_normalized("NFC", text) or folder == "gpt2"
        assert tokenizer.decode(encoding.ids) == (
            text if same else unicodedata.normalize("NFC", text)
        )
        assert_spans_agree(encoding, tiled=same)


def test_gpt2_tokens_and_spans() -> None:
    encoding = real("gpt2").encode(" 🦙 the café")
    assert encoding.tokens == (" <0xF0 0x9F>", "<0xA6>", "<0x99>", " the", " café")
    assert encoding.char_spans == ((0, 2), (1, 2), (1, 2), (2, 6), (6, 11))
    assert encoding.byte_spans == ((0, 3), (3, 4), (4, 5), (5, 9), (9, 15))


def test_tokenizer_that_composes_characters_covers_their_parts() -> None:
    encoding = real("qwen2").encode("C" + "ư\u0309" + "a e\u0301")
    assert encoding.tokens == ("C", "\u1eeda", " \xe9")
    assert encoding.char_spans == ((0, 1), (1, 4), (4, 7))


def test_leading_spaces_are_not_trimmed_off_the_spans() -> None:
    assert real("gpt-neox-20b").encode(" a  b").char_spans == ((0, 2), (2, 4), (4, 5))


@pytest.mark.parametrize(
    ("text", "ids"),
    [  # AutoTokenizer(text).input_ids of transformers 5.23
        ("Once upon", (1, 403, 407)),
        (" Once", (1, 410, 403)),
        ("  Once", (1, 410, 410, 403)),
        ("a</s> b", (1, 261, 2, 410, 268)),
        ("a</s>b", (1, 261, 2, 268)),
        ("x\n\ty é🦙", (1, 410, 444, 13, 12, 422, 410, 485, 243, 162, 169, 156)),
        ("", (1,)),
        ("<s>Hi", (1, 1, 320, 417)),
    ],
)
def test_stories_ids_match_transformers(text: str, ids: tuple[int, ...]) -> None:
    tokenizer = stories()
    encoding = tokenizer.encode(text)
    assert encoding.ids == ids
    assert_spans_agree(encoding, tiled=True)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.vocab_size) == (1, 2, 512)
    assert tokenizer.adds_bos


# BOS and EOS


@pytest.mark.parametrize("bos", [BOS, {"__type": "AddedToken", "content": BOS, "lstrip": False}])
@pytest.mark.parametrize("add_bos", [None, True, False])
@pytest.mark.parametrize("in_template", [True, False])
def test_only_the_template_decides_as_in_transformers(
    tmp_path: Path, bos: object, add_bos: bool | None, in_template: bool
) -> None:
    spec = byte_level_spec() | ({"post_processor": template({BOS: 264})} if in_template else {})
    config = {"bos_token": bos} | ({} if add_bos is None else {"add_bos_token": add_bos})
    tokenizer = written(tmp_path, spec, config)
    assert tokenizer.encode(" Paris").ids == ((264, 260) if in_template else (260,))
    assert tokenizer.adds_bos is in_template
    assert tokenizer.bos_id == 264
    assert tokenizer.encode("").ids == ((264,) if in_template else ())


@pytest.mark.parametrize("in_template", [True, False])
def test_prepend_bos(tmp_path: Path, in_template: bool) -> None:
    spec = byte_level_spec() | ({"post_processor": template({BOS: 264})} if in_template else {})
    tokenizer = written(tmp_path, spec, {"bos_token": BOS})
    assert tokenizer.encode(" Paris", prepend_bos=True).ids == (264, 260)
    assert tokenizer.encode(" Paris", prepend_bos=False).ids == (260,)
    assert tokenizer.encode(f"{BOS} Paris", prepend_bos=True).ids == (264, 260)
    assert tokenizer.encode(f"{BOS} Paris", prepend_bos=False).ids == (264, 260)
    doubled = (264, 264, 260) if in_template else (264, 260)
    assert tokenizer.encode(f"{BOS} Paris").ids == doubled
    assert tokenizer.encode("", prepend_bos=True).ids == (264,)


def test_eos_of_the_template_stays(tmp_path: Path) -> None:
    spec = byte_level_spec() | {"post_processor": template({BOS: 264}, {"<|end|>": 265})}
    tokenizer = written(tmp_path, spec, {"add_eos_token": False})
    encoding = tokenizer.encode(" Paris")
    assert encoding.ids == (264, 260, 265)
    assert encoding.tokens == (BOS, " Paris", "<|end|>")
    assert encoding.char_spans == (None, (0, 6), None)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (264, 265)
    assert tokenizer.encode(" Paris", prepend_bos=False).ids == (260, 265)


def test_bos_id_of_the_model_serves_where_the_tokenizer_is_silent(tmp_path: Path) -> None:
    tokenizer = written(
        tmp_path, byte_level_spec(), {"model_max_length": 8}, bos_id=264, eos_id=265
    )
    assert (tokenizer.bos_id, tokenizer.eos_id) == (264, 265)
    assert not tokenizer.adds_bos
    assert tokenizer.encode(" Paris", prepend_bos=True).ids == (264, 260)


@pytest.mark.parametrize("config", [None, {"bos_token": None}, {"bos_token": "<absent>"}])
def test_bos_asked_of_a_tokenizer_without(tmp_path: Path, config: dict[str, Any] | None) -> None:
    bos_id = None if config is None else 264  # the configuration, where it speaks, wins
    tokenizer = written(tmp_path, byte_level_spec(), config, bos_id=bos_id)
    assert tokenizer.bos_id is None
    assert tokenizer.encode(" Paris", prepend_bos=False).ids == (260,)
    with pytest.raises(TokenError, match="prepend_bos=True, but tok names no BOS token; leave"):
        tokenizer.encode(" Paris", prepend_bos=True)


def test_special_tokens_named_only_by_the_configuration_are_read_in_text(tmp_path: Path) -> None:
    spec = metaspace_spec()
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] != "</s>"]
    ids = written(tmp_path, spec, {"eos_token": "</s>"}).encode("is</s>").ids
    assert ids[-1] == 2
    assert written(tmp_path, spec).encode("is</s>").ids[-1] != 2


def test_truncation_and_padding_of_the_file_are_off(tmp_path: Path) -> None:
    spec = metaspace_spec()
    spec["truncation"] = {
        "direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0,
    }  # fmt: skip
    spec["padding"] = {
        "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "<unk>",
    }  # fmt: skip
    assert written(tmp_path, spec).encode("is" + " is" * 20).ids[-1] != 0
    assert len(written(tmp_path, spec).encode(" is" * 20)) > 20


# Tokens and places


def test_byte_level_tokens(byte_level: Tokenizer) -> None:
    encoding = byte_level.encode("x 🦙 Paris é<|end|>")
    assert encoding.tokens == (
        BOS, "x", " <0xF0 0x9F>", "<0xA6>", "<0x99>", " Paris", " ", "é", "<|end|>",
    )  # fmt: skip
    assert encoding.char_spans == (
        None, (0, 1), (1, 3), (2, 3), (2, 3), (3, 9), (9, 10), (10, 11), (11, 18),
    )  # fmt: skip
    assert encoding.byte_spans == (
        None, (0, 1), (1, 4), (4, 5), (5, 6), (6, 12), (12, 13), (13, 15), (15, 22),
    )  # fmt: skip
    assert byte_level.decode(encoding.ids) == BOS + encoding.text
    assert byte_level.decode(encoding.ids, skip_special_tokens=True) == "x 🦙 Paris é"
    assert byte_level.vocab_size == 266


def test_metaspace_tokens(metaspace: Tokenizer) -> None:
    encoding = metaspace.encode("Paris in Paris\n")
    assert encoding.tokens == ("<s>", " Paris", " ", "in", " Paris", "\n")
    assert encoding.char_spans == (None, (0, 5), (5, 6), (6, 8), (8, 14), (14, 15))
    assert metaspace.decode(encoding.ids, skip_special_tokens=True) == encoding.text
    assert metaspace.decode(encoding.ids) == "<s> Paris in Paris\n"


def test_dummy_space_has_no_place(metaspace: Tokenizer) -> None:
    encoding = metaspace.encode("🦙 é")
    assert encoding.tokens == (
        "<s>", " ", "<0xF0>", "<0x9F>", "<0xA6>", "<0x99>", " ", "é",
    )  # fmt: skip
    assert encoding.char_spans == (None, (0, 0), *[(0, 1)] * 4, (1, 2), (2, 3))
    assert encoding.byte_spans == (
        None, (0, 0), (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 7),
    )  # fmt: skip
    assert metaspace.encode(" Paris").char_spans == (None, (0, 0), (0, 6))


def test_from_place_to_token(byte_level: Tokenizer) -> None:
    encoding = byte_level.encode("x 🦙 Paris")
    assert len(encoding) == 6
    assert [encoding.char_to_token(c) for c in (0, 1, 2, 3, 8)] == [1, 2, 2, 5, 5]
    assert [encoding.byte_to_token(b) for b in (0, 3, 4, 5, 6)] == [1, 2, 3, 4, 5]
    assert encoding.span_to_tokens(2, 4) == (2, 3, 4, 5)
    assert encoding.span_to_tokens(0, 9) == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(("start", "end"), [(-1, 4), (3, 3), (5, 4), (0, 7)])
def test_span_outside_the_text(byte_level: Tokenizer, start: int, end: int) -> None:
    encoding = byte_level.encode(" Paris")
    with pytest.raises(
        TokenError, match=f"span {start} to {end} is empty or outside the text of 6"
    ):
        encoding.span_to_tokens(start, end)
    with pytest.raises(TokenError, match="span -1 to 0 is empty or outside the text of 6 bytes"):
        encoding.byte_to_token(-1)


text_with_traps = st.text() | st.lists(
    st.sampled_from([" ", "\n", " Paris", "is", "é", "e\u0301", "🦙", "👩‍🔬", "<|end|>", "▁", "Ġ"])
).map("".join)


@settings(deadline=None, max_examples=150)
@given(text=text_with_traps)
def test_byte_level_round_trip(byte_level: Tokenizer, text: str) -> None:
    encoding = byte_level.encode(text, prepend_bos=False)
    assert byte_level.decode(encoding.ids) == text
    assert_spans_agree(encoding, tiled=True)


@settings(deadline=None, max_examples=150)
@given(text=text_with_traps.filter(lambda text: "▁" not in text))
def test_metaspace_round_trip(metaspace: Tokenizer, text: str) -> None:
    encoding = metaspace.encode(text, prepend_bos=False)
    assert metaspace.decode(encoding.ids) == text
    assert_spans_agree(encoding, tiled=True)


# One token


def test_single_id_byte_level(byte_level: Tokenizer) -> None:
    assert byte_level.single_id(" Paris") == 260
    assert byte_level.single_id(BOS) == 264
    with pytest.raises(TokenError) as refused:
        byte_level.single_id("Paris")
    assert str(refused.value) == (
        "'Paris' is not one token of tok: its pieces are ['P' (47), 'ar' (256), 'is' (257)]; "
        "' Paris' is one token. Choose a text that is one token, or take the ids of all pieces "
        "from encode"
    )


def test_single_id_metaspace_spaces_count(metaspace: Tokenizer) -> None:
    assert metaspace.single_id(" Paris") == 271
    assert metaspace.single_id("is") == 268
    assert metaspace.single_id("\n") == 13
    assert metaspace.single_id("</s>") == 2
    with pytest.raises(TokenError, match=r"'is' \(268\)\]; ' Paris' is one token"):
        metaspace.single_id("Paris")
    with pytest.raises(TokenError, match=r"are \[' ' \(259\), 'is' \(268\)\]; 'is' is one"):
        metaspace.single_id(" is")
    with pytest.raises(
        TokenError, match=r"'' is not one token of tok: its pieces are \[\]\. Choose"
    ):
        metaspace.single_id("")


def test_single_id_reads_back(metaspace: Tokenizer, byte_level: Tokenizer) -> None:
    for tokenizer in (metaspace, byte_level):
        for id in range(tokenizer.vocab_size):
            shown = tokenizer.token_string(id)
            try:
                found = tokenizer.single_id(shown)
            except TokenError:
                assert "<0x" in shown or shown == "<unk>" or shown == " <0xF0 0x9F>"
            else:
                assert tokenizer.token_string(found) == shown


# Refusals


def test_unknown_ids(byte_level: Tokenizer) -> None:
    with pytest.raises(TokenError, match="token id 266, -1 is not among the 266 of tok"):
        byte_level.decode([1, 266, -1])
    with pytest.raises(TokenError, match="token id 99999999999 is not among the 266 of tok"):
        byte_level.token_string(99999999999)


def test_ids_may_be_an_array_but_flat(byte_level: Tokenizer) -> None:
    assert byte_level.decode(np.asarray([260, 257])) == " Parisis"
    assert byte_level.token_string(np.int64(260)) == " Paris"
    with pytest.raises(TokenError, match="token ids must be a flat sequence of integers"):
        byte_level.decode(np.asarray([[260, 257]]))


def test_text_with_half_a_character(byte_level: Tokenizer) -> None:
    with pytest.raises(TokenError, match=r"character 1 is the surrogate '\\ud83e', half of"):
        byte_level.encode("a\ud83e")


def test_sentencepiece_alone_is_refused_with_the_way_out() -> None:
    model = Path("mistral-v1", "tokenizer.model")
    tokenizer = Tokenizer.from_files(None, sentencepiece=model, source="mistral-v1")
    with pytest.raises(
        TokenError, match=r"mistral-v1 has no tokenizer.json, only .*tokenizer.model"
    ):
        tokenizer.encode("Paris")
    with pytest.raises(TokenError, match=r"token ids instead.*save_pretrained\(folder\)"):
        _ = tokenizer.bos_id


def test_no_files_at_all() -> None:
    tokenizer = Tokenizer.from_files(None, source="tiny")
    with pytest.raises(TokenError, match=r"tiny has no tokenizer.json\. Pass token ids instead"):
        tokenizer.decode([1])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version https://git-lfs.github.com/spec/v1", "is no tokenizer: expected value at line 1"),
        ("[]", "is no tokenizer: invalid type: sequence"),
        ("{}", "is no tokenizer: "),
    ],
)
def test_corrupt_files(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TokenError, match=f"tokenizer.json {said}.*fetch it again"):
        Tokenizer.from_files(path, source="tok").encode("a")


def test_missing_file(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_files(tmp_path / "tokenizer.json", source="tok")
    with pytest.raises(TokenError, match=r"tokenizer.json is no tokenizer: No such file"):
        tokenizer.encode("a")


def test_import_is_cheap_and_text_must_be_str(tmp_path: Path) -> None:
    written(tmp_path, byte_level_spec())
    script = """
import pathlib, sys
from mi_ref.tokenizer import Tokenizer
tokenizer = Tokenizer.from_files(pathlib.Path(sys.argv[1]), source="tok")
assert "tokenizers" not in sys.modules
tokenizer.encode(b"Paris")
"""
    # Outside the test run, where nothing checks annotations before the method does.
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "tokenizer.json")],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert done.stderr.strip().endswith("TokenError: text must be a str, not bytes b'Paris'")
