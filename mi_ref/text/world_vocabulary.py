"""Read RWKV's ``rwkv_vocab_*.txt``: tokens by id, and the tree that finds the longest."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mi_ref.errors import TokenError

_LINE = re.compile(r"""([0-9]+) (b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")) ([0-9]+)""")
_LISTED = 12
"""How many faults an error lists; in a file of another kind, every line is one."""


class Node(dict[int, Any]):
    """What may follow the first bytes of a token: a node for each next byte."""

    __slots__ = ("id",)

    def __init__(self) -> None:
        self.id: int | None = None
        """The token that these bytes form; None if they only begin tokens."""


def tree(tokens: Mapping[int, bytes]) -> Node:
    """Return the root of the tree of all tokens."""
    start = Node()
    for id, token in tokens.items():
        node = start
        for byte in token:
            below = node.get(byte)
            if below is None:
                below = node[byte] = Node()
            node = below
        node.id = id
    return start


def read_vocabulary(path: Path) -> dict[int, bytes]:
    """Return the tokens of a file by id.

    Raises
    ------
    TokenError
        If it cannot be read, or lines are faulty; the message says what is wrong with each of the
        first dozen.
    """
    try:
        lines = path.read_bytes().decode().removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{path} cannot be read as UTF-8: {error}; fetch it again") from error
    tokens: dict[int, bytes] = {}
    ids: dict[bytes, int] = {}
    faults = []
    with warnings.catch_warnings(action="error"):  # Python only warns of an unknown escape.
        for number, line in enumerate(lines, 1):
            try:
                id, token = _entry(line.removesuffix("\r"))
                if id in tokens:
                    raise ValueError(f"id {id} is already {tokens[id]!r}")
                if token in ids:
                    raise ValueError(f"the token is already id {ids[token]}")
                tokens[id], ids[token] = token, id
            except (ValueError, SyntaxError) as error:
                faults.append(f"line {number}, {line[:60]!r}: {getattr(error, 'msg', error)}")
    if faults:
        left = len(faults) - _LISTED
        listed = "\n  ".join([*faults[:_LISTED], *([f"and {left} more"] if left > 0 else [])])
        raise TokenError(f"{path} is not a World vocabulary; fetch it again:\n  {listed}")
    return tokens


def _entry(line: str) -> tuple[int, bytes]:
    """Return the id and the bytes on a line; raise a ValueError or SyntaxError if it is faulty."""
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError("expected an id, a token as '…', \"…\", b'…' or b\"…\", and its length")
    id, size = int(match[1]), int(match[3])
    literal = ast.literal_eval(match[2])
    token = literal.encode() if isinstance(literal, str) else literal
    if len(token) != size:
        raise ValueError(f"expected a token of {size} bytes, got {len(token)}")
    if not id:
        raise ValueError("expected an id from 1 on: 0 ends a text")
    if not token:
        raise ValueError("expected a token of at least one byte")
    return id, token
