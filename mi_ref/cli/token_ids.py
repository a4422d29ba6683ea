"""``--ids``: token ids in the place of text, for models without a tokenizer and exact prompts."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from mi_ref.cli import options

PROMPTS = (
    "prompt", "clean", "corrupted", "contrast", "counterfactual", "reference", "toward", "away",
    "patch_from",
)  # fmt: skip
TOKENS = ("target", "other", "word")
POSITIONS = ("subject",)
TEXTS = ("pairs",)
"""Options that have no place beside ids: a file of pairs says itself what it holds."""


def read(arguments: argparse.Namespace) -> None:
    """With ``--ids``, put numbers in the place of the text of options.

    Raises
    ------
    SystemExit
        With status 2 if one is given that is no such number, or means text only.
    """
    if not getattr(arguments, "ids", False):
        return
    if beside := options.given(arguments, *TEXTS):
        arguments.refuse(f"{beside}: not beside --ids")
    for names, convert in ((PROMPTS, _ids), (TOKENS, _id), (POSITIONS, _positions)):
        for name in names:
            _convert(arguments, name, convert)


def _convert(arguments: argparse.Namespace, name: str, convert: Callable[[str], Any]) -> None:
    text = getattr(arguments, name, None)
    if text is None:
        return
    try:
        numbers = [convert(each) for each in text] if isinstance(text, list) else convert(text)
    except argparse.ArgumentTypeError as error:
        arguments.refuse(f"argument --{name.replace('_', '-')}: {error}")
    else:
        setattr(arguments, name, numbers)


def _ids(text: str) -> list[int]:
    return [_whole(part, text, "token ids, as 5,17,3") for part in text.split(",")]


def _id(text: str) -> int:
    return _whole(text, text, "a token id, as 17")


def _positions(text: str) -> list[int]:
    return [_whole(part, text, "positions, as 3,4") for part in text.split(",")]


def _whole(part: str, text: str, wanted: str) -> int:
    try:
        return int(part)
    except ValueError:
        raise argparse.ArgumentTypeError(f"--ids needs {wanted}, not {text!r}") from None
