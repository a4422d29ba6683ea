"""Text to token ids and back, with the span of every token in the text.

It reads two kinds of file: ``tokenizer.json`` and, where that is absent, RWKV's
``rwkv_vocab_*.txt`` (:mod:`mi_ref.text.world_tokenizer`).

``tokenizer.json`` alone decides which special tokens surround a text: transformers 5 ignores
``add_bos_token`` and ``add_eos_token`` of ``tokenizer_config.json`` wherever that file exists, and
so does this module. Two differences from transformers 5.23 remain, because it rebuilds pipelines
that this module takes from the file: its ``LlamaTokenizer`` adds no dummy space after a special
token or before a text that starts with a space, and its ``GPTNeoXTokenizer`` drops the file's BOS.

Source: transformers 5.23 ``tokenization_utils_base.py`` ``_from_pretrained``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, SupportsIndex

from mi_ref.errors import TokenError
from mi_ref.text import chat
from mi_ref.text.spans import Encoding, places
from mi_ref.text.tokenizer_files import Loaded, load, refuse
from mi_ref.text.world_tokenizer import load_world
from mi_ref.whole_numbers import whole_number


class Tokenizer:
    """A checkpoint's tokenizer, read on first use.

    A checkpoint without a readable tokenizer raises an error only once text is involved: models
    run on token ids alone.
    """

    def __init__(self, source: str, load: Callable[[], Loaded]) -> None:
        self.source = source
        self._load = load

    @classmethod
    def from_files(
        cls,
        tokenizer_json: Path | None,
        tokenizer_config: Path | None = None,
        *,
        world: Sequence[Path] = (),
        sentencepiece: Path | None = None,
        source: str,
        bos_id: int | None = None,
        eos_id: int | None = None,
        chat_templates: Mapping[str, Path] | None = None,
    ) -> Tokenizer:
        """Describe a tokenizer by its files; pass None for those that the checkpoint lacks.

        Parameters
        ----------
        tokenizer_json, tokenizer_config : Path or None
            The files of these names.
        world : sequence of Path
            Every ``rwkv_vocab_*.txt``, read where there is no ``tokenizer.json``.
        sentencepiece : Path or None
            A ``tokenizer.model``. It cannot be read here; the error names it.
        source : str
            What the user calls the checkpoint, for messages.
        bos_id, eos_id : int or None
            What ``config.json`` says, used where ``tokenizer_config.json`` leaves ``bos_token`` or
            ``eos_token`` out (GPT-2). A null there says that there is none (Qwen) and wins.
        chat_templates : mapping or None
            Template files by name; ``"default"`` is ``chat_template.jinja``.
        """
        ids = {"bos_token": bos_id, "eos_token": eos_id}
        templates = chat_templates or {}
        if tokenizer_json is not None:
            return cls(source, partial(load, tokenizer_json, tokenizer_config, ids, templates))
        if world:
            return cls(source, partial(load_world, world, tokenizer_config, ids, templates))
        return cls(source, partial(refuse, sentencepiece, source))

    @cached_property
    def _loaded(self) -> Loaded:
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
        return self._loaded.vocabulary.size

    @property
    def kind(self) -> str:
        """How it splits text: ``BPE``, ``Unigram``, ``World`` or another name."""
        return self._loaded.vocabulary.kind

    @property
    def adds_bos(self) -> bool:
        """Whether `encode` puts a BOS first unless told otherwise."""
        return bool(self._loaded.prefix)

    def encode(
        self, text: str, *, prepend_bos: bool | None = None, add_special_tokens: bool = True
    ) -> Encoding:
        """Return the token ids of `text`, never truncated or padded, whatever the file says.

        Special tokens written in the text (``<s>``) become their ids. An empty text is allowed.

        Parameters
        ----------
        prepend_bos : bool or None
            None: as the checkpoint's own tokenizer does, even where that doubles a BOS that the
            text starts with. True: exactly one BOS comes first, whether the tokenizer or the text
            supplies it. False: none is added; one written in the text stays.
        add_special_tokens : bool
            False: add nothing around the text but what `prepend_bos` asks for, as a rendered chat
            needs.
        """
        loaded = self._loaded
        if prepend_bos and loaded.bos_id is None:
            raise TokenError(
                f"prepend_bos=True, but {self.source} has no BOS token; leave prepend_bos out, "
                "or pass token ids that start as you want"
            )
        plain, offsets = loaded.vocabulary.encode(_checked_text(text))
        prefix, suffix = (loaded.prefix, loaded.suffix) if add_special_tokens else ((), ())
        if prepend_bos is False or (prepend_bos and plain[:1] == [loaded.bos_id]):
            prefix = ()
        elif prepend_bos and loaded.bos_id is not None:
            prefix = prefix or (loaded.bos_id,)
        ids = (*prefix, *plain, *suffix)
        raw = {id: loaded.vocabulary.token_bytes(id) for id in {*ids}}
        shown = {id: _readable(of) for id, of in raw.items()}
        chars, spans = places(text, [raw[id] for id in plain], offsets)
        tokens = tuple(shown[id] for id in ids)
        before, after = (None,) * len(prefix), (None,) * len(suffix)
        return Encoding(text, ids, tokens, (*before, *chars, *after), (*before, *spans, *after))

    def render_chat(
        self,
        messages: chat.Messages,
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        template: str | None = None,
        **variables: Any,
    ) -> str:
        """Return the text of a conversation, written by the checkpoint's chat template.

        It contains the special tokens that the template writes, so `encode` it with
        ``add_special_tokens=False``. Text appended to it continues the answer. Special tokens that
        a message contains become tokens too, as in HuggingFace. Needs ``mi_ref[chat]``.

        Parameters
        ----------
        messages : sequence of mapping
            ``{"role": "user", "content": "Hi"}`` each, with whatever else the template reads.
        add_generation_prompt : bool
            Whether to end with the start of an answer (HuggingFace's default is not to). Templates
            without one ignore it.
        tools : sequence of mapping or None
            JSON schemas of functions that the model may call.
        template : str or None
            Name of one of several templates, or Jinja to use instead of the checkpoint's.
        **variables : plain data
            Whatever else the template reads (``enable_thinking=False``). A variable that it does
            not read is refused.

        Raises
        ------
        TokenError
            If there is no template, messages are malformed, or the template refuses them.
        """
        loaded = self._loaded
        return chat.render_chat(
            chat.find_template(
                loaded.chat_template,
                loaded.template_files,
                wanted=template,
                with_tools=tools is not None,
                source=self.source,
            ),
            messages,
            special_tokens=loaded.special_tokens,
            add_generation_prompt=add_generation_prompt,
            tools=tools,
            variables=variables,
            source=self.source,
        )

    def decode(self, ids: Iterable[SupportsIndex], *, skip_special_tokens: bool = False) -> str:
        """Return the text of `ids` read together.

        Tokenizers that put a space before every text remove it again here, so a continuation
        decoded alone loses its first space; `token_string` of each id keeps it. As in
        transformers, that space stays after a BOS that is not skipped (``<s> Paris``).
        """
        checked = self._checked_ids(ids)
        return self._loaded.vocabulary.decode(checked, skip_special_tokens=skip_special_tokens)

    def token_string(self, id: SupportsIndex) -> str:
        r"""Return one token as it reads inside a text (``" Paris"``, ``"\n"``, ``"<s>"``).

        Bytes that do not form a character are shown in hexadecimal: ``"<0xE2>"``,
        ``" <0xF0 0x9F>"``.
        """
        return _readable(self._loaded.vocabulary.token_bytes(self._checked_ids([id])[0]))

    def shown(self, id: SupportsIndex) -> str:
        """One token as text; ids that the tokenizer does not know show as ``<id 9>``."""
        try:
            return self.token_string(id)
        except TokenError:
            # Embeddings are often padded beyond the vocabulary, and ids work without a tokenizer.
            return f"<id {id}>"

    def single_id(self, text: str) -> int:
        """Return the id of the one token that reads exactly `text` in the middle of a text.

        Spaces count, for every tokenizer: ``" Paris"`` is the token that starts a word, ``"Paris"``
        the one that continues it. ``token_string(single_id(text)) == text``, up to the tokenizer's
        own Unicode normalization.

        Raises
        ------
        TokenError
            If there is none. The message lists the pieces of `text`.
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
            "Choose a text that is one token, or get the ids of all pieces from encode"
        )

    def _find_single(self, text: str) -> tuple[int | None, list[int]]:
        vocabulary = self._loaded.vocabulary
        wanted = {text, vocabulary.normalize(text)}
        cuts = vocabulary.cuts(text)
        for ids in cuts:
            if len(ids) == 1 and self.token_string(ids[0]) in wanted:
                return ids[0], ids
        return None, cuts[-1]

    def _checked_ids(self, ids: Iterable[SupportsIndex]) -> list[int]:
        try:
            checked = [whole_number(i) for i in ids]
        except TypeError as error:
            raise TokenError(
                f"expected a flat sequence of integers as token ids: {error}"
            ) from error
        knows = self._loaded.vocabulary.knows
        unknown = [str(i) for i in checked if not knows(i)]
        if unknown:
            raise TokenError(
                f"token id {', '.join(unknown)} is not among the {self.vocab_size} of "
                f"{self.source}. Ids just above these are padding rows of the embedding; others "
                "come from a different tokenizer"
            )
        return checked


def _checked_text(text: str) -> str:
    if not isinstance(text, str):
        raise TokenError(f"expected text as a str, got {type(text).__name__} {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenError(
            f"text must be encodable as UTF-8: character {error.start} is the surrogate "
            f"{text[error.start]!r}, half of a character; decode its source as UTF-8"
        ) from error
    return text


def _readable(raw: bytes) -> str:
    """Decode UTF-8, with bytes that do not form a character in hexadecimal."""
    text = raw.decode("utf-8", "surrogateescape")
    return re.sub(
        "[\udc80-\udcff]+",
        lambda match: f"<{' '.join(f'0x{ord(char) - 0xDC00:02X}' for char in match[0])}>",
        text,
    )
