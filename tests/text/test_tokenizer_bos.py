"""Special tokens: which surround a text, which are read in it, by family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mi_ref.errors import TokenError
from tests.fixtures.tokenizer_specs import BOS, byte_level_spec, metaspace_spec, template, written


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
    with pytest.raises(TokenError, match="prepend_bos=True, but tok has no BOS token; leave"):
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


def test_without_special_tokens_nothing_surrounds_the_text(tmp_path: Path) -> None:
    spec = byte_level_spec() | {"post_processor": template({BOS: 264}, {"<|end|>": 265})}
    tokenizer = written(tmp_path, spec)
    assert tokenizer.encode(" Paris", add_special_tokens=False).ids == (260,)
    assert tokenizer.encode(f"{BOS} Paris", add_special_tokens=False).ids == (264, 260)
    bare = tokenizer.encode(" Paris", prepend_bos=True, add_special_tokens=False)
    assert bare.ids == (264, 260)
    assert bare.char_spans == (None, (0, 6))


# The families' tokenizers, each with the parts that decide its special tokens.

BYTES_ONLY = {
    "type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True,
}  # fmt: skip


def gemma_spec() -> dict[str, Any]:
    """No space before a text, and ``<bos>``."""
    spec = metaspace_spec()
    spec["normalizer"] = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    spec["decoder"]["decoders"] = spec["decoder"]["decoders"][:3]
    return dict(json.loads(json.dumps(spec).replace('"<s>"', '"<bos>"')))


def mistral_spec() -> dict[str, Any]:
    """A space before a text that lacks one, and ``<s>``."""
    return metaspace_spec() | {
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False,
        },
    }  # fmt: skip


def llama3_spec() -> dict[str, Any]:
    """Two processors, the second of which adds the BOS."""
    steps = [BYTES_ONLY, template({BOS: 264})]
    return byte_level_spec() | {"post_processor": {"type": "Sequence", "processors": steps}}


END = {"bos_token": "<|end|>", "eos_token": "<|end|>"}
FAMILIES: dict[str, tuple[dict[str, Any], dict[str, Any], int | None, tuple[int, ...]]] = {
    "gpt2": (byte_level_spec(), END, 265, (260, 220, 257)),
    "gpt_neox": (byte_level_spec() | {"post_processor": BYTES_ONLY}, END, 265, (260, 220, 257)),
    "qwen2": (
        byte_level_spec() | {"post_processor": BYTES_ONLY},
        {"bos_token": None, "eos_token": "<|end|>", "add_bos_token": False},
        None,
        (260, 220, 257),
    ),
    "llama3": (llama3_spec(), {"bos_token": BOS}, 264, (264, 260, 220, 257)),
    "llama2": (metaspace_spec(), {"bos_token": "<s>"}, 1, (1, 259, 271, 259, 268)),
    "mistral": (mistral_spec(), {"bos_token": "<s>"}, 1, (1, 271, 259, 268)),
    "gemma": (gemma_spec(), {"bos_token": "<bos>"}, 1, (1, 271, 259, 268)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_bos_of_a_family(tmp_path: Path, family: str) -> None:
    """The ids are those of transformers 5.23 for " Paris is" and the same files."""
    spec, config, bos_id, ids = FAMILIES[family]
    tokenizer = written(tmp_path, spec, config)
    assert tokenizer.bos_id == bos_id
    assert tokenizer.encode(" Paris is").ids == ids
    adds = ids[0] == bos_id
    assert tokenizer.adds_bos is adds
    assert tokenizer.encode(" Paris is", prepend_bos=False).ids == ids[adds:]
    if bos_id is not None:
        assert tokenizer.encode(" Paris is", prepend_bos=True).ids == (bos_id, *ids[adds:])


@pytest.mark.parametrize(
    "config",
    [
        {"unk_token": "<unk>", "pad_token": {"content": "</s>", "__type": "AddedToken"}},
        {"additional_special_tokens": ["<unk>", {"content": "</s>", "__type": "AddedToken"}]},
        {"extra_special_tokens": {"one_token": "<unk>", "other_token": "</s>"}},
    ],
)
def test_every_special_token_of_the_configuration_is_read_in_text(
    tmp_path: Path, config: dict[str, Any]
) -> None:
    spec = metaspace_spec()
    spec["added_tokens"] = [token for token in spec["added_tokens"] if token["content"] == "<s>"]
    assert written(tmp_path, spec, config).encode("is<unk></s>").ids == (1, 259, 268, 0, 2)
    assert len(written(tmp_path, spec).encode("is<unk></s>")) > 5
