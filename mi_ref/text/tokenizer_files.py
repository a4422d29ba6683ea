"""Read a tokenizer's files: the vocabulary, what goes around a text, and the special tokens.

Source: transformers 5.23 ``tokenization_utils_base.py`` ``_from_pretrained``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, runtime_checkable

from mi_ref.errors import TokenError
from mi_ref.text.spans import Span

# GPT-2's printable alphabet: bytes that print stand for themselves, the others follow from U+0100.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(0x100) if byte not in _PRINTABLE]
_BYTE = {chr(b): b for b in _PRINTABLE} | {chr(0x100 + n): b for n, b in enumerate(_OTHERS)}


@runtime_checkable
class Vocabulary(Protocol):
    """Text to token ids and back, with nothing added around it: what every kind can do."""

    @property
    def kind(self) -> str:
        """``BPE``, ``Unigram``, ``World`` or another name."""

    @property
    def size(self) -> int:
        """Number of tokens."""

    def knows(self, id: int) -> bool:
        """Whether an id is a token; the other methods accept only such ids."""

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token as it reads in the middle of a text."""

    def encode(self, text: str) -> tuple[list[int], list[Span]]:
        """Return the ids of `text` and the character span of each; spans may overlap."""

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of `ids` read together."""

    def normalize(self, text: str) -> str:
        """Return `text` in the characters that the tokens spell."""

    def cuts(self, text: str) -> list[list[int]]:
        """Return every way in which `text` is split, wherever it stands in a longer text."""


@dataclass(frozen=True, slots=True)
class Pipeline:
    """What a ``tokenizer.json`` describes, run by the ``tokenizers`` package."""

    backend: Any
    """The pipeline, without truncation, padding and post-processor."""
    byte_level: bool
    metaspace: bool
    added: dict[int, str]

    @property
    def kind(self) -> str:
        """The class of its model."""
        return type(self.backend.model).__name__

    @property
    def size(self) -> int:
        """Number of tokens, added ones included."""
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def knows(self, id: int) -> bool:
        """Whether an id is a token."""
        return 0 <= id < 2**32 and self.backend.id_to_token(id) is not None

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token as it reads in the middle of a text."""
        if id in self.added:
            return self.added[id].encode()
        piece: str = self.backend.id_to_token(id)
        if self.byte_level and _BYTE.keys() >= set(piece):
            return bytes(_BYTE[char] for char in piece)
        if self.metaspace and (match := re.fullmatch("<0x([0-9A-F]{2})>", piece)):
            return bytes.fromhex(match[1])
        return (piece.replace("▁", " ") if self.metaspace else piece).encode()

    def encode(self, text: str) -> tuple[list[int], list[Span]]:
        """Return the ids of `text` and the character span of each, spaces included."""
        found = self.backend.encode(text, add_special_tokens=False)
        return found.ids, found.offsets

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of `ids`, by the file's decoder."""
        return str(self.backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def normalize(self, text: str) -> str:
        """Return `text` after the file's normalizer."""
        normalizer = self.backend.normalizer
        return str(normalizer.normalize_str(text)) if normalizer else text

    def cuts(self, text: str) -> list[list[int]]:
        """Return how `text` is split at the start, and where no space is added before it."""
        found = [self.encode(text)[0]]
        if self.metaspace:
            # The bare model adds no space, so " Paris" can be split as it is.
            pieces = self.backend.model.tokenize(text.replace(" ", "▁"))
            found.append([piece.id for piece in pieces])
        return found


@dataclass(frozen=True, slots=True)
class Loaded:
    """A tokenizer as its files describe it."""

    vocabulary: Vocabulary
    prefix: tuple[int, ...]
    """Ids added before a text; `suffix` is added after it."""
    suffix: tuple[int, ...]
    bos_id: int | None
    eos_id: int | None
    special_tokens: dict[str, str]
    """The text of ``bos_token``, ``eos_token`` and others, for a chat template."""
    chat_template: object
    """``chat_template`` of ``tokenizer_config.json``, unchecked."""
    template_files: Mapping[str, Path]


def refuse(sentencepiece: Path | None, source: str) -> NoReturn:
    """Refuse text for a checkpoint without ``tokenizer.json``, and say what it needs."""
    only = f", only {sentencepiece}, which cannot be read here" if sentencepiece else ""
    raise TokenError(
        f"{source} has no tokenizer.json{only}. Pass token ids instead of text, or let "
        "transformers write that file from the original tokenizer: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    )


def load(
    tokenizer_json: Path,
    tokenizer_config: Path | None,
    ids: dict[str, int | None],
    template_files: Mapping[str, Path],
) -> Loaded:
    """Read a ``tokenizer.json``.

    Parameters
    ----------
    tokenizer_json, tokenizer_config : Path
        The files of these names.
    ids : dict
        ``bos_token`` and ``eos_token`` where ``tokenizer_config.json`` leaves them out.
    template_files : mapping
        Chat templates by name, passed through.

    Raises
    ------
    TokenError
        If a file is damaged.
    """
    config = {} if tokenizer_config is None else read_json(tokenizer_config)
    return loaded(_read_pipeline(tokenizer_json), config, ids, template_files)


def loaded(
    backend: Any,
    config: Mapping[str, Any],
    ids: Mapping[str, int | None],
    template_files: Mapping[str, Path],
) -> Loaded:
    """Return a tokenizer of the package ``tokenizers`` with what its configuration says.

    Parameters
    ----------
    backend : tokenizers.Tokenizer
        The tokenizer, which is changed.
    config : mapping
        As ``tokenizer_config.json`` has it.
    ids, template_files
        As for `load`.
    """
    special = special_tokens(config)
    _recognize([*special.values(), *unnamed_tokens(config)], backend)
    named = {key: special.get(key) for key in ids if key in config}
    ids = dict(ids) | {key: backend.token_to_id(n) if n else None for key, n in named.items()}

    prefix, suffix = _surroundings(backend)
    bos_id = prefix[0] if prefix else ids["bos_token"]
    eos_id = suffix[-1] if suffix else ids["eos_token"]
    for key, id in (("bos_token", bos_id), ("eos_token", eos_id)):
        if key not in config and id is not None and (known := backend.id_to_token(id)) is not None:
            special[key] = known
    backend.post_processor = None  # It would also trim spaces from the offsets.
    # The JSON of single steps: parsing the whole file's would take longer than reading the file.
    states = [step.__getstate__() for step in (backend.pre_tokenizer, backend.decoder) if step]
    steps = b"".join(states).decode()
    vocabulary = Pipeline(
        backend=backend,
        byte_level='"ByteLevel"' in steps,
        metaspace="▁" in steps,
        added={i: token.content for i, token in backend.get_added_tokens_decoder().items()},
    )
    return Loaded(
        vocabulary=vocabulary,
        prefix=prefix,
        suffix=suffix,
        bos_id=bos_id,
        eos_id=eos_id,
        special_tokens=special,
        chat_template=config.get("chat_template"),
        template_files=template_files,
    )


def _read_pipeline(path: Path) -> Any:
    from tokenizers import Tokenizer as Backend

    try:
        backend = Backend.from_file(str(path))
    except Exception as error:  # The library raises Exception itself, nothing narrower.
        raise TokenError(f"{path} is not a tokenizer: {error}; fetch it again") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the special tokens that a configuration names under keys such as ``image_token``."""
    extra = config.get("extra_special_tokens")
    entries = {**config, **(extra if isinstance(extra, dict) else {})}
    named = {key: token_content(entry) for key, entry in entries.items() if key.endswith("_token")}
    return {key: content for key, content in named.items() if content}


def unnamed_tokens(config: Mapping[str, Any]) -> list[str]:
    """Return the special tokens that a configuration lists without a name."""
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens")
    listed = extra if isinstance(extra, list) else []
    return [content for content in map(token_content, listed) if content]


def token_content(entry: object) -> str | None:
    """Return the text of a token, which configurations write as a string or in an object."""
    content = entry.get("content") if isinstance(entry, dict) else entry
    return content if isinstance(content, str) else None


def _recognize(names: Iterable[str], backend: Any) -> None:
    """Recognize in a text the special tokens that the configuration names, as transformers does."""
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    known = [name for name in names if backend.token_to_id(name) is not None]
    backend.add_special_tokens([name for name in known if name not in added])


def _surroundings(backend: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the post-processor adds before and after any text."""
    # Any text that has a token shows it; an added token always is one.
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    around = backend.encode("a" + next(iter(added), ""))
    inside = [n for n, sequence in enumerate(around.sequence_ids) if sequence is not None]
    prefix = around.ids[: inside[0] if inside else None]
    suffix = around.ids[inside[-1] + 1 :] if inside else []
    return tuple(prefix), tuple(suffix)


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object; a TokenError says what the file holds instead."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TokenError(f"{path} cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise TokenError(
            f"{path}: expected a JSON object, got a {type(content).__name__}; fetch it again"
        )
    return content
