"""Two prompts that are compared position by position, and places named in them."""

from __future__ import annotations

from dataclasses import dataclass

from mi_ref.edits.intervention import Places, indices, plain_places
from mi_ref.errors import ShapeError, TokenError
from mi_ref.model import Model
from mi_ref.output.origin import Origin
from mi_ref.text.prompt import Prompt


@dataclass(frozen=True, slots=True)
class PromptPair:
    """Token ids of two prompts of equal length."""

    first: tuple[int, ...]
    second: tuple[int, ...]

    def differing(self) -> tuple[int, ...]:
        """Return the positions at which they have different tokens."""
        pairs = enumerate(zip(self.first, self.second, strict=True))
        return tuple(pos for pos, (a, b) in pairs if a != b)


def read_pair(
    model: Model,
    first: Prompt,
    second: Prompt,
    *,
    names: tuple[str, str],
    prepend_bos: bool | None = None,
) -> PromptPair:
    """Return two prompts as token ids.

    Parameters
    ----------
    model : Model
        Whose tokens.
    first, second : str, sequence of int, or Array
        Each one text, or its token ids.
    names : tuple of str
        What the two are called in errors.
    prepend_bos : bool or None
        As for `Model.run`.

    Raises
    ------
    TokenError
        If they differ in length or not at all.
    """
    a, b = (one_prompt(model, prompt, prepend_bos) for prompt in (first, second))
    if len(a) != len(b):
        shown = [[model.token_string(n) for n in ids] for ids in (a, b)]
        raise TokenError(
            f"{names[0]} has {len(a)} tokens {shown[0]}, {names[1]} has {len(b)} {shown[1]}: what"
            " is carried over keeps its position, so that both need one length. Name another"
            " subject, or pass token ids."
        )
    if a == b:
        raise TokenError(f"{names[0]} and {names[1]} are the same tokens: nothing can differ.")
    return PromptPair(a, b)


def one_prompt(model: Model, prompt: Prompt, prepend_bos: bool | None = None) -> tuple[int, ...]:
    """Return the token ids of one prompt.

    Raises
    ------
    ShapeError
        If there are several.
    """
    rows: list[list[int]] = model.backend.to_host(
        model.to_tokens(prompt, prepend_bos=prepend_bos)
    ).tolist()
    if len(rows) != 1:
        raise ShapeError(f"one prompt is needed, not {len(rows)}: call it for each.")
    return tuple(rows[0])


def places(chosen: Places, size: int, what: str) -> tuple[int, ...]:
    """Return places along an axis counted from the front, each once, in the order given.

    Raises
    ------
    ArgumentError
        If they are neither indices, nor a slice, nor a mask.
    ShapeError
        If one lies outside, or there is none.
    """
    try:
        found = dict.fromkeys(indices(plain_places(chosen, what), size))
    except IndexError as error:
        raise ShapeError(f"{what} {error}.") from None
    if not found:
        raise ShapeError(f"{what}={chosen!r} names none of the {size}.")
    return tuple(found)


def place(chosen: int, size: int, what: str) -> int:
    """Return one place along an axis, counted from the front.

    Raises
    ------
    ArgumentError
        If it is not an index.
    ShapeError
        If it lies outside, or is not one.
    """
    found = () if chosen is None else places(chosen, size, what)
    if len(found) != 1:
        raise ShapeError(f"{what}={chosen!r}: one of the {size} is needed.")
    return found[0]


def position_names(origin: Origin, tokens: tuple[int, ...]) -> tuple[str, ...]:
    """Return each position's token as it shows in headings, with its number."""
    return tuple(f"{pos} {origin.token_string(n)!r}" for pos, n in enumerate(tokens))
