"""Where an edit acts: a mapping from axes to places, and the words that are short for axes.

``where={"pos": [-1], "expert": [1]}`` names axes as the sites do. ``positions=``, ``heads=``,
``neurons=``, ``rows=`` and ``keys=`` are the readable way to write the usual ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mi_ref.errors import ArgumentError, HookError
from mi_ref.hooks.places import Places, axis_number, plain_places

WORDS = {
    "positions": "pos",
    "heads": "head",
    "neurons": "d_mlp",
    "rows": "batch",
    "keys": "key_pos",
}
"""The axis that each keyword is short for."""
_WORD_OF = {axis: word for word, axis in WORDS.items()}
_ORDER = {axis: number for number, axis in enumerate(_WORD_OF)}


def word_of(axis: str) -> str:
    """Return what messages and calls name an axis by: ``"heads"`` for ``"head"``."""
    return _WORD_OF.get(axis, axis)


class Where(Mapping[str, Places]):
    """Axes and the places along each; an axis that is not named is meant as a whole.

    Immutable, hashable, and equal whatever the order in which axes were given.

    Parameters
    ----------
    places : mapping
        From axes, by the names that sites give them, to places.

    Raises
    ------
    ArgumentError
        If something else is given for an axis or for places.
    """

    __slots__ = ("_places",)

    def __init__(self, places: Mapping[str, Any] | None = None) -> None:
        given = {} if places is None else places
        if not isinstance(given, Mapping) or not all(isinstance(axis, str) for axis in given):
            raise ArgumentError(
                f"where={places!r}: expected a mapping from axes to places, such as"
                " {'expert': [1]}."
            )
        # Whatever came in, plain tuples stay: they print, compare, hash and go to JSON.
        plain = {axis: plain_places(given[axis], word_of(axis)) for axis in given}
        ordered = sorted(plain, key=lambda axis: (_ORDER.get(axis, len(_ORDER)), axis))
        self._places = tuple((axis, plain[axis]) for axis in ordered if plain[axis] is not None)

    def __getitem__(self, axis: str) -> Places:
        for name, places in self._places:
            if name == axis:
                return places
        raise KeyError(axis)

    def __iter__(self) -> Iterator[str]:
        return (axis for axis, _ in self._places)

    def __len__(self) -> int:
        return len(self._places)

    def __hash__(self) -> int:
        return hash(self._places)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Where):
            return self._places == other._places
        return dict(self._places) == other if isinstance(other, Mapping) else NotImplemented

    def __repr__(self) -> str:
        return repr(dict(self._places))

    def but(self, **axes: Any) -> Where:
        """Return the same with other places along some axes; None for the whole axis."""
        return Where({**self, **axes})

    def numbered(self, axes: tuple[str, ...]) -> dict[int, Places]:
        """Return the places by the number of their axis at a site.

        Raises
        ------
        HookError
            If the site lacks an axis, or two names mean the same one.
        """
        found: dict[int, Places] = {}
        for axis, places in self._places:
            number = axis_number(axis, axes)
            if number is None:
                raise HookError(f"it has no {word_of(axis)} to choose from")
            if number in found:
                raise HookError(f"its axis {axes[number]} is restricted twice")
            found[number] = places
        return found

    def along(self, axis: str, axes: tuple[str, ...]) -> Places:
        """Return the places along one axis of a site; None for all, or if it lacks the axis."""
        number = axis_number(axis, axes)
        return None if number is None else self.numbered(axes).get(number)


EVERYWHERE = Where()


def where_of(where: Mapping[str, Any] | None = None, **words: Any) -> Where:
    """Return what ``where=`` and the keywords say together.

    Raises
    ------
    ArgumentError
        If they say of one axis twice where to act.
    """
    named, axes = Where(where), Where({WORDS[word]: places for word, places in words.items()})
    if twice := sorted(named.keys() & axes.keys()):
        raise ArgumentError(
            f"{word_of(twice[0])}= and where={{{twice[0]!r}: …}} name the same axis: give one."
        )
    return Where({**named, **axes})
