"""A tokenizer from the metadata of a GGUF file, run by the package ``tokenizers``.

Two kinds of vocabulary are read: ``gpt2``, byte-level BPE with merges, and ``llama``,
SentencePiece's BPE with a score for each token. Where llama.cpp and transformers 5.24 differ on
one file, this module does as llama.cpp: it cuts a text as the file's pre-tokenizer says
(transformers does not know ``smollm`` and others, and joins digits), and puts a space before every
text, one that starts with a space included.

Source: llama.cpp ``src/llama-vocab.cpp``; transformers 5.24 ``integrations/gguf``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mi_ref.checkpoints.gguf.pretokenizers import PRE_TOKENIZERS, WHOLE_WORDS
from mi_ref.errors import TokenError
from mi_ref.text.tokenizer_files import Loaded, loaded

_NORMAL, _CONTROL, _USER_DEFINED = 1, 3, 4
_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
_TEMPLATE = "tokenizer.chat_template"
_BESIDE = "Put the model's tokenizer.json beside the file, or pass token ids instead of text"


def load_gguf(
    metadata: Mapping[str, Any], source: str, template_files: Mapping[str, Path]
) -> Loaded:
    """Read a tokenizer.

    Parameters
    ----------
    metadata : mapping
        Of the file.
    source : str
        The model, for messages.
    template_files : mapping
        Chat templates by name, added to those of the file.

    Raises
    ------
    TokenError
        If the file has none, of an unknown kind, or a damaged one.
    """
    backend, config = build(metadata, source)
    ids = {key: metadata.get(f"tokenizer.ggml.{_KEYS[key]}") for key in ("bos_token", "eos_token")}
    return loaded(backend, config, ids, template_files)


def build(metadata: Mapping[str, Any], source: str) -> tuple[Any, dict[str, Any]]:
    """Return a tokenizer of the package ``tokenizers``, and a ``tokenizer_config.json`` for it.

    Raises
    ------
    TokenError
        As for `load_gguf`.
    """
    vocabulary = _Vocabulary(metadata, source)
    kind = vocabulary.get("model")
    try:
        if kind == "gpt2":
            backend = _byte_level(vocabulary)
        elif kind == "llama":
            backend = _sentencepiece(vocabulary)
        else:
            raise vocabulary.refuse(
                f"its tokenizer is of the kind {kind!r}; expected 'gpt2' or 'llama'. {_BESIDE}"
            )
        _add_tokens(backend, vocabulary)
        _surround(backend, vocabulary, kind)
    except TokenError:
        raise
    except Exception as error:  # the library raises Exception itself, nothing narrower
        raise vocabulary.refuse(f"its tokenizer is damaged: {error}. {_BESIDE}") from error
    return backend, vocabulary.config()


class _Vocabulary:
    """The tokens of a file, checked, and its other keys."""

    def __init__(self, metadata: Mapping[str, Any], source: str) -> None:
        self.metadata, self.source = metadata, source
        self.tokens: list[str] = self.listed("tokens", str)
        if not self.tokens:
            raise self.refuse(f"it has no tokenizer. {_BESIDE}")
        size = len(self.tokens)
        self.types: list[int] = self.listed("token_type", int) or [_NORMAL] * size
        self.scores: list[float] = self.listed("scores", int | float) or [0.0] * size
        if not len(self.types) == len(self.scores) == size:
            raise self.refuse(
                f"its tokenizer has {size} tokens, but {len(self.types)} types and"
                f" {len(self.scores)} scores: it is damaged. {_BESIDE}"
            )

    def get(self, key: str, default: Any = None) -> Any:
        return self.metadata.get(f"tokenizer.ggml.{key}", default)

    def refuse(self, why: str) -> TokenError:
        return TokenError(f"{self.source} cannot take text: {why}")

    def listed(self, key: str, kind: Any) -> list[Any]:
        value = self.get(key, [])
        if not isinstance(value, list) or not all(isinstance(item, kind) for item in value):
            raise self.refuse(f"tokenizer.ggml.{key} is not a list of {kind}. {_BESIDE}")
        return value

    def merges(self) -> list[tuple[str, str]]:
        # The first character may be a space itself; the one between the halves comes after it.
        cuts = [(merge, merge.find(" ", 1)) for merge in self.listed("merges", str)]
        if wrong := [merge for merge, at in cuts if at < 0]:
            raise self.refuse(f"its merge {wrong[0]!r} is not of two tokens. {_BESIDE}")
        return [(merge[:at], merge[at + 1 :]) for merge, at in cuts]

    def named(self, key: str) -> str | None:
        """Return a special token by the key of its id."""
        id = self.get(key)
        if id is None:
            return None
        if type(id) is not int or not 0 <= id < len(self.tokens):
            raise self.refuse(f"{key} is {id}; its tokens are 0 to {len(self.tokens) - 1}")
        return self.tokens[id]

    def config(self) -> dict[str, Any]:
        """Return what ``tokenizer_config.json`` would say; a null says that there is none."""
        named = {
            key.removeprefix(f"{_TEMPLATE}."): text
            for key, text in self.metadata.items()
            if key.startswith(f"{_TEMPLATE}.")
        }
        template: Any = self.metadata.get(_TEMPLATE)
        if named:
            every = named if template is None else {"default": template, **named}
            template = [{"name": name, "template": text} for name, text in every.items()]
        return {
            **{key: self.named(id_key) for key, id_key in _KEYS.items()},
            **({} if template is None else {"chat_template": template}),
        }


def _byte_level(vocabulary: _Vocabulary) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    name = vocabulary.get("pre")
    if name not in PRE_TOKENIZERS:
        raise vocabulary.refuse(
            f"its pre-tokenizer is {name!r}, which is unknown here; expected one of"
            f" {', '.join(PRE_TOKENIZERS)}. Cut in another way, a text would become other tokens."
            f" {_BESIDE}"
        )
    ids = {token: id for id, token in enumerate(vocabulary.tokens)}
    backend = Tokenizer(
        models.BPE(vocab=ids, merges=vocabulary.merges(), ignore_merges=name in WHOLE_WORDS)
    )
    cuts = [pre_tokenizers.Split(Regex(cut), "isolated") for cut in PRE_TOKENIZERS[name]]
    bytes_of = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, bytes_of])
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(vocabulary: _Vocabulary) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers

    # Runs of spaces stand as they are, while all other tokens have ▁ for a space.
    tokens = [
        "▁" * len(token) if token and not token.strip(" ") else token for token in vocabulary.tokens
    ]
    ids = {token: id for id, token in enumerate(tokens)}
    backend = Tokenizer(
        models.BPE(
            vocab=ids,
            merges=vocabulary.merges() or list(_merges(vocabulary, tokens, ids)),
            unk_token=vocabulary.named("unknown_token_id"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces = normalizers.Replace(" ", "▁")
    prefix = vocabulary.get("add_space_prefix", True)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefix else spaces
    )
    decoded = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    stripped = [decoders.Strip(" ", 1, 0)] if prefix else []
    backend.decoder = decoders.Sequence([*decoded, *stripped])
    return backend


def _merges(
    vocabulary: _Vocabulary, tokens: list[str], ids: Mapping[str, int]
) -> Iterator[tuple[str, str]]:
    """Yield every pair of tokens that makes a token: that of the highest score merges first.

    SentencePiece finds tokens that a user defined before it merges; here their merges come first.
    """
    kinds, scores = vocabulary.types, vocabulary.scores
    order = sorted(
        (id for id, kind in enumerate(kinds) if kind in (_NORMAL, _USER_DEFINED)),
        key=lambda id: (kinds[id] != _USER_DEFINED, -scores[id] if kinds[id] == _NORMAL else 0.0),
    )
    for id in order:
        token = tokens[id]
        for cut in range(len(token) - 1, 0, -1):
            if token[:cut] in ids and token[cut:] in ids:
                yield token[:cut], token[cut:]


def _add_tokens(backend: Any, vocabulary: _Vocabulary) -> None:
    """Let a text contain control tokens and those that a user defined."""
    from tokenizers import AddedToken

    kinds = list(zip(vocabulary.tokens, vocabulary.types, strict=True))
    held = [(token, kind) for token, kind in kinds if backend.token_to_id(token) is not None]
    control = [token for token, kind in held if kind == _CONTROL]
    defined = [token for token, kind in held if kind == _USER_DEFINED]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in control])
    backend.add_tokens([AddedToken(token, normalized=False) for token in defined])


def _surround(backend: Any, vocabulary: _Vocabulary, kind: str) -> None:
    """Put BOS before a text and EOS behind it, if the file or its kind says so."""
    from tokenizers import processors

    starts = kind == "llama" or vocabulary.get("pre") in WHOLE_WORDS
    ends = [
        (vocabulary.get(f"add_{name}_token", default), f"{name}_token_id")
        for name, default in (("bos", starts), ("eos", False))
    ]
    before, after = ([] if not adds else [vocabulary.named(key)] for adds, key in ends)
    around = [token for token in (*before, *after) if token is not None]
    if not around:
        return
    parts = [token for token in (*before, "$A", *after) if token is not None]
    backend.post_processor = processors.TemplateProcessing(
        single=parts, special_tokens=[(token, backend.token_to_id(token)) for token in {*around}]
    )
