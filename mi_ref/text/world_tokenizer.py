r"""RWKV's World tokenizer: at each point of a text, the longest token of ``rwkv_vocab_*.txt``.

A line of that file is an id, a quoted token and its length in bytes: ``1922 'hi' 2``. Id 0 ends a
text; it is not in the file and reads ``<|endoftext|>`` unless ``tokenizer_config.json`` names it.

Special tokens in a text: BlinkDL's Python package ``rwkv`` has none, so ``<|endoftext|>`` is 13
characters. HuggingFace's remote ``RwkvTokenizer`` splits a text at each, named or by default. Here
a text is split at those that ``tokenizer_config.json`` names and that have an id not in the file. A
named token that is in the file stays an ordinary token, as in training; HuggingFace instead gives
``eos_token: "\n\n"`` the id 65530, whose embedding was never trained, not the file's 261.

Source: ``rwkv_tokenizer.py`` of the package ``rwkv`` 0.8.32; ``hf_rwkv_tokenizer.py`` of the
converted checkpoints on the Hub, under transformers 5.23.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from mi_ref.errors import TokenError
from mi_ref.text.spans import Span
from mi_ref.text.tokenizer_files import (
    Loaded,
    read_json,
    special_tokens,
    token_content,
    unnamed_tokens,
)
from mi_ref.text.world_vocabulary import read_vocabulary, tree

_END = "<|endoftext|>"
_TRIMMED = "lstrip", "rstrip", "single_word"


class World:
    """The tokens of one file, those added to it, and which of them are special."""

    kind = "World"

    def __init__(
        self, file: Path, tokens: Mapping[int, bytes], added: Mapping[int, str], special: set[int]
    ) -> None:
        self._file = file
        self._bytes = {0: _END.encode(), **tokens} | {id: t.encode() for id, t in added.items()}
        self._special = {0, *special}
        self._added = {text: id for id, text in added.items()}
        longest_first = map(re.escape, sorted(self._added, key=len, reverse=True))
        self._named = re.compile(f"({'|'.join(longest_first) or '(?!)'})")
        self._start = tree(tokens)

    @property
    def size(self) -> int:
        """Number of tokens, including id 0 and others that are not in the file."""
        return len(self._bytes)

    def knows(self, id: int) -> bool:
        """Whether an id is a token."""
        return id in self._bytes

    def token_bytes(self, id: int) -> bytes:
        """Return the bytes of one token."""
        return self._bytes[id]

    def encode(self, text: str) -> tuple[list[int], list[Span]]:
        """Return the ids of `text` and the characters of which each holds at least some bytes."""
        ids: list[int] = []
        cuts = [0]
        for number, part in enumerate(self._named.split(text)):
            start, raw = cuts[-1], part.encode()
            # Every second part is a match of the pattern.
            found = [(self._added[part], len(raw))] if number % 2 else self._longest(raw)
            for id, end in found:
                ids.append(id)
                cuts.append(start + end)
        # How many characters have begun by each byte.
        begun = list(accumulate(byte & 0xC0 != 0x80 for byte in text.encode()))
        return ids, [(begun[start] - 1, begun[end - 1]) for start, end in pairwise(cuts)]

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        """Return the text of the joined bytes, with U+FFFD for those that form no character."""
        kept = [id for id in ids if not (skip_special_tokens and id in self._special)]
        return b"".join(self._bytes[id] for id in kept).decode(errors="replace")

    def normalize(self, text: str) -> str:
        """Return `text` itself."""
        return text

    def cuts(self, text: str) -> list[list[int]]:
        """Return the one way in which `text` is split."""
        return [self.encode(text)[0]]

    def _longest(self, raw: bytes) -> Iterator[tuple[int, int]]:
        """Yield the id of each token and where in `raw` it ends."""
        at, size = 0, len(raw)
        while at < size:
            node, place, found = self._start, at, None
            while place < size and (below := node.get(raw[place])) is not None:
                node, place = below, place + 1
                if node.id is not None:
                    found = node.id, place
            if found is None:
                shown = raw[max(0, at - 20) : at + 20].decode(errors="ignore")
                raise TokenError(
                    f"{self._file} has no token for the byte 0x{raw[at]:02X} in {shown!r}. A"
                    " complete file has one for each byte: fetch it again"
                )
            yield found
            at = found[1]


def load_world(
    files: Sequence[Path],
    tokenizer_config: Path | None,
    ids: Mapping[str, int | None],
    template_files: Mapping[str, Path],
) -> Loaded:
    """Read a World tokenizer.

    Parameters
    ----------
    files : sequence of Path
        Every ``rwkv_vocab_*.txt`` of a checkpoint.
    tokenizer_config, ids, template_files
        As for :func:`.tokenizer_files.load`. If the first two name no existing token, there
        is no BOS, and 0 is the EOS. ``add_bos_token`` is honoured, as in HuggingFace's class.

    Raises
    ------
    TokenError
        If there are several vocabularies, or a file is damaged.
    """
    if len(files) > 1:
        listed = ", ".join(map(str, files))
        raise TokenError(
            f"expected one vocabulary, got {listed}; remove those that are not the model's"
        )
    config = {} if tokenizer_config is None else read_json(tokenizer_config)
    tokens, named = read_vocabulary(files[0]), special_tokens(config)
    by_text = {token: id for id, token in tokens.items()}
    added, special = _beside(config, by_text)
    by_text |= {text.encode(): id for id, text in added.items()}
    vocabulary = World(files[0], tokens, added, special)

    def find(key: str, default: int | None) -> int | None:
        if key in config:  # A null says that there is none.
            return by_text.get(named[key].encode(), default) if key in named else None
        id = ids[key]
        return default if id is None or not vocabulary.knows(id) else id

    bos_id, eos_id = find("bos_token", None), find("eos_token", 0)
    if config.get("add_bos_token"):
        bos_id = bos_id or 0
    for key, id in (("bos_token", bos_id), ("eos_token", eos_id)):
        # Only if the text that a template writes is read back as this token.
        if id is not None and by_text.get(raw := vocabulary.token_bytes(id)) == id:
            named.setdefault(key, raw.decode(errors="replace"))
    return Loaded(
        vocabulary=vocabulary,
        prefix=(bos_id,) if config.get("add_bos_token") and bos_id is not None else (),
        suffix=(),
        bos_id=bos_id,
        eos_id=eos_id,
        special_tokens=named,
        chat_template=config.get("chat_template"),
        template_files=template_files,
    )


def _beside(
    config: Mapping[str, Any], known: Mapping[bytes, int]
) -> tuple[dict[int, str], set[int]]:
    """Return the tokens that a configuration adds to the `known` ones, and which are special."""
    added, special = _listed(config)
    named = special_tokens(config)
    names = [*named.values(), *unnamed_tokens(config)]
    ends = [named.get(f"{which}_token") for which in ("bos", "eos", "unk", "pad")]
    ends.append(_END if _END in names else None)
    # HuggingFace's class gives its BOS the id 0.
    without_id = [t for t in ends if t and t.encode() not in known and t not in added.values()]
    if 0 not in added and without_id:
        added[0] = without_id[0]
    return added, special | {id for id, text in added.items() if text in names}


def _listed(config: Mapping[str, Any]) -> tuple[dict[int, str], set[int]]:
    """Return the tokens that a configuration gives an id, and which of them are special."""
    listed = config.get("added_tokens_decoder") or {}
    added: dict[int, str] = {}
    for id, entry in listed.items() if isinstance(listed, dict) else [("", listed)]:
        content = token_content(entry) if isinstance(entry, dict) else None
        if not content or not id.isdecimal() or any(entry.get(flag) for flag in _TRIMMED):
            raise TokenError(
                f"added_tokens_decoder of tokenizer_config.json: expected an id with the content to"
                f" split a text at, without {', '.join(_TRIMMED)}; got {id!r}: {entry!r}"
            )
        added[int(id)] = content
    return added, {int(id) for id, entry in listed.items() if entry.get("special")}
