"""Text to token ids and back, with the place of every token in the text.

``tokenizer.json`` alone decides which special tokens surround a text: transformers 5 ignores
``add_bos_token`` and ``add_eos_token`` of ``tokenizer_config.json`` wherever that file exists, and
so does this module. Two differences from transformers 5.23 remain, where it rebuilds a pipeline
that this module takes from the file: its ``LlamaTokenizer`` adds no dummy space before a text that
starts with one nor after a special token, and its ``GPTNeoXTokenizer`` drops the file's BOS.

Source: transformers 5.23 ``tokenization_utils_base.py`` ``_from_pretrained``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from operator import index
from pathlib import Path
from typing import Any, NoReturn, SupportsIndex

from mi_ref.encoding import Encoding, places
from mi_ref.errors import TokenError

# GPT-2's printable alphabet: bytes that print stand for themselves, the others follow from U+0100.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(0x100) if byte not in _PRINTABLE]
_BYTE = {chr(b): b for b in _PRINTABLE} | {chr(0x100 + n): b for n, b in enumerate(_OTHERS)}


class Tokenizer:
    """The text side of a checkpoint, read on first use.

    A checkpoint without a readable tokenizer is no error until text is involved: models run on
    token ids alone.
    """

    def __init__(self, source: str, load: Callable[[], _Loaded]) -> None:
        self.source = source
        self._load = load

    @classmethod
    def from_files(
        cls,
        tokenizer_json: Path | None,
        tokenizer_config: Path | None = None,
        *,
        sentencepiece: Path | None = None,
        source: str,
        bos_id: int | None = None,
        eos_id: int | None = None,
    ) -> Tokenizer:
        """Describe a tokenizer by its files, None for those that the checkpoint lacks.

        Parameters
        ----------
        tokenizer_json, tokenizer_config : Path or None
            The files of these names.
        sentencepiece : Path or None
            A ``tokenizer.model``. It cannot be read, only named in the error.
        source : str
            The checkpoint as the reader knows it, for messages.
        bos_id, eos_id : int or None
            What ``config.json`` says, used where ``tokenizer_config.json`` leaves ``bos_token`` or
            ``eos_token`` out (GPT-2). A null there means that there is none (Qwen), and wins.
        """
        ids = {"bos_token": bos_id, "eos_token": eos_id}
        if tokenizer_json is None:
            return cls(source, partial(_refuse, sentencepiece, source))
        return cls(source, partial(_load, tokenizer_json, tokenizer_config, ids))

    @cached_property
    def _loaded(self) -> _Loaded:
        return self._load()

    @property
    def bos_id(self) -> int | None:
        """Id that starts a sequence; None for tokenizers without one."""
        return self._loaded.bos_id

    @property
    def eos_id(self) -> int | None:
        """Id that ends a sequence; None for tokenizers without one."""
        return self._loaded.eos_id

    @property
    def vocab_size(self) -> int:
        """Number of tokens; the model's ``d_vocab`` is often larger, padded."""
        return int(self._loaded.backend.get_vocab_size(with_added_tokens=True))

    @property
    def adds_bos(self) -> bool:
        """Whether `encode` puts a BOS first unless told otherwise."""
        return bool(self._loaded.prefix)

    def encode(self, text: str, *, prepend_bos: bool | None = None) -> Encoding:
        """Token ids of `text`, never cut or padded, whatever ``tokenizer.json`` says.

        Special tokens written in the text (``<s>``) become their ids. An empty text is allowed.

        Parameters
        ----------
        prepend_bos : bool or None
            None: as the checkpoint's own tokenizer does, even where that doubles a BOS that the
            text starts with. True: exactly one BOS comes first, whether the tokenizer or the text
            brings it. False: none is added; one written in the text stays.
        """
        loaded = self._loaded
        if prepend_bos and loaded.bos_id is None:
            raise TokenError(
                f"prepend_bos=True, but {self.source} names no BOS token; leave prepend_bos out, "
                "or pass token ids that start as you want"
            )
        plain = loaded.backend.encode(_checked_text(text), add_special_tokens=False)
        prefix, suffix = loaded.prefix, loaded.suffix
        if prepend_bos is False or (prepend_bos and plain.ids[:1] == [loaded.bos_id]):
            prefix = ()
        elif prepend_bos and loaded.bos_id is not None:
            prefix = prefix or (loaded.bos_id,)
        ids = (*prefix, *plain.ids, *suffix)
        tokens = tuple(_readable(loaded.token_bytes(i)) for i in ids)
        chars, spans = places(text, [loaded.token_bytes(i) for i in plain.ids], plain.offsets)
        before, after = (None,) * len(prefix), (None,) * len(suffix)
        return Encoding(text, ids, tokens, (*before, *chars, *after), (*before, *spans, *after))

    def decode(self, ids: Iterable[SupportsIndex], *, skip_special_tokens: bool = False) -> str:
        """Text of `ids` read together.

        Tokenizers that put a space before every text take it off again here, so a continuation
        decoded alone loses its first space: `token_string` of each id keeps it. As in
        transformers, that space shows after a BOS that is not skipped (``<s> Paris``).
        """
        checked = self._checked_ids(ids)
        return str(self._loaded.backend.decode(checked, skip_special_tokens=skip_special_tokens))

    def token_string(self, id: SupportsIndex) -> str:
        r"""One token as it reads in the middle of a text (``" Paris"``, ``"\n"``, ``"<s>"``).

        Bytes that are no whole character show as hexadecimal: ``"<0xE2>"``, ``" <0xF0 0x9F>"``.
        """
        return _readable(self._loaded.token_bytes(self._checked_ids([id])[0]))

    def single_id(self, text: str) -> int:
        """Id of the token that reads exactly `text` in the middle of a text, else a `TokenError`.

        Spaces count, for every tokenizer: ``" Paris"`` is the token that starts a word, ``"Paris"``
        the one that continues it. ``token_string(single_id(text)) == text``, up to the tokenizer's
        own Unicode normalization.
        """
        found, pieces = self._find_single(_checked_text(text))
        if found is not None:
            return found
        shown = ", ".join(f"{self.token_string(i)!r} ({i})" for i in pieces)
        other = text[1:] if text.startswith(" ") else f" {text}"
        hint = (
            f"; {other!r} is one token" if text and self._find_single(other)[0] is not None else ""
        )
        raise TokenError(
            f"{text!r} is not one token of {self.source}: its pieces are [{shown}]{hint}. "
            "Choose a text that is one token, or take the ids of all pieces from encode"
        )

    def _find_single(self, text: str) -> tuple[int | None, list[int]]:
        backend = self._loaded.backend
        normalizer = backend.normalizer
        wanted = {text, normalizer.normalize_str(text) if normalizer else text}
        ids: list[int] = backend.encode(text, add_special_tokens=False).ids
        attempts = [ids]
        if self._loaded.metaspace:
            # The model below the pipeline adds no space, so " Paris" can be asked for as it is.
            attempts.append([t.id for t in backend.model.tokenize(text.replace(" ", "▁"))])
        for ids in attempts:
            if len(ids) == 1 and self.token_string(ids[0]) in wanted:
                return ids[0], ids
        return None, ids

    def _checked_ids(self, ids: Iterable[SupportsIndex]) -> list[int]:
        try:
            checked = [index(i) for i in ids]
        except TypeError as error:
            raise TokenError(f"token ids must be a flat sequence of integers: {error}") from error
        known = self._loaded.backend.id_to_token
        unknown = [str(i) for i in checked if not 0 <= i < 2**32 or known(i) is None]
        if unknown:
            raise TokenError(
                f"token id {', '.join(unknown)} is not among the {self.vocab_size} of "
                f"{self.source}. Ids just above them are padding rows of the embedding; others "
                "come from a different tokenizer"
            )
        return checked


@dataclass(frozen=True, slots=True)
class _Loaded:
    backend: Any
    byte_level: bool
    metaspace: bool
    added: dict[int, str]
    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    bos_id: int | None
    eos_id: int | None

    def token_bytes(self, id: int) -> bytes:
        if id in self.added:
            return self.added[id].encode()
        piece: str = self.backend.id_to_token(id)
        if self.byte_level and _BYTE.keys() >= set(piece):
            return bytes(_BYTE[char] for char in piece)
        if self.metaspace and (match := re.fullmatch("<0x([0-9A-F]{2})>", piece)):
            return bytes.fromhex(match[1])
        return (piece.replace("▁", " ") if self.metaspace else piece).encode()


def _refuse(sentencepiece: Path | None, source: str) -> NoReturn:
    only = f", only {sentencepiece}, which cannot be read here" if sentencepiece else ""
    raise TokenError(
        f"{source} has no tokenizer.json{only}. Pass token ids instead of text, or let "
        "transformers write that file from the original tokenizer: "
        "AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
    )


def _load(
    tokenizer_json: Path, tokenizer_config: Path | None, ids: dict[str, int | None]
) -> _Loaded:
    from tokenizers import Tokenizer as Backend

    config = {} if tokenizer_config is None else _read_json(tokenizer_config)
    try:
        backend = Backend.from_file(str(tokenizer_json))
    except Exception as error:  # the library raises Exception itself, nothing narrower
        raise TokenError(f"{tokenizer_json} is no tokenizer: {error}; fetch it again") from error
    backend.no_truncation()
    backend.no_padding()

    names = {key: config[key] for key in ids if key in config}
    names = {key: n.get("content") if isinstance(n, dict) else n for key, n in names.items()}
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    # As in transformers, what the configuration names is recognized in a text.
    known = [n for n in names.values() if n and backend.token_to_id(n) is not None]
    backend.add_special_tokens([name for name in known if name not in added])
    ids = ids | {key: backend.token_to_id(n) if n else None for key, n in names.items()}

    # Any text with a token in it shows what the template puts around; an added token is one.
    around = backend.encode("a" + next(iter(added), ""))
    inside = [n for n, sequence in enumerate(around.sequence_ids) if sequence is not None]
    prefix = around.ids[: inside[0] if inside else None]
    suffix = around.ids[inside[-1] + 1 :] if inside else []
    backend.post_processor = None  # it would also trim the spaces off the offsets
    # Each step as its own JSON; the whole file's would take longer to parse than to use.
    states = [step.__getstate__() for step in (backend.pre_tokenizer, backend.decoder) if step]
    steps = b"".join(states).decode()
    return _Loaded(
        backend=backend,
        byte_level='"ByteLevel"' in steps,
        metaspace="▁" in steps,
        added={i: token.content for i, token in backend.get_added_tokens_decoder().items()},
        prefix=tuple(prefix),
        suffix=tuple(suffix),
        bos_id=prefix[0] if prefix else ids["bos_token"],
        eos_id=suffix[-1] if suffix else ids["eos_token"],
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise TokenError(f"{path} cannot be read as JSON: {error}; fetch it again") from error
    if not isinstance(content, dict):
        raise TokenError(f"{path} holds a {type(content).__name__}, not an object; fetch it again")
    return content


def _checked_text(text: str) -> str:
    if not isinstance(text, str):
        raise TokenError(f"text must be a str, not {type(text).__name__} {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenError(
            f"text must be Unicode that UTF-8 can hold: character {error.start} is the surrogate "
            f"{text[error.start]!r}, half of a character; decode its source as UTF-8"
        ) from error
    return text


def _readable(raw: bytes) -> str:
    """Decode, with the bytes that make no character in hexadecimal."""
    text = raw.decode("utf-8", "surrogateescape")
    return re.sub(
        "[\udc80-\udcff]+",
        lambda match: f"<{' '.join(f'0x{ord(char) - 0xDC00:02X}' for char in match[0])}>",
        text,
    )
