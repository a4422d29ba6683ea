"""Edits as plain data: what they do and where, checked before any compute.

An intervention is an edit like any other, ``edits=[(at.z[3], do.scale(0.5, heads=[2]))]``, that
prints as the call that makes it and can be written to a file. :mod:`mi_ref.do` makes them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from mi_ref._typing import Array
from mi_ref.backend import Backend
from mi_ref.edits.where import EVERYWHERE, WORDS, Where, word_of
from mi_ref.errors import HookError, ShapeError
from mi_ref.hooks.capture import Hook
from mi_ref.hooks.catalog import HookPoint
from mi_ref.hooks.places import Places as Places, indices as indices, plain_places as plain_places
from mi_ref.text.padding import Padding


@dataclass(frozen=True, slots=True, repr=False)
class Intervention(ABC):
    """An edit that says where it acts; everywhere else it leaves an activation as it is.

    A class of one's own is a frozen dataclass with a `name`, whose other fields have defaults, and
    a method `change`. It says of itself whether it is `pure` and `row_by_row`; both are taken for
    false unless it does.

    Parameters
    ----------
    positions, heads, neurons, rows, keys : Places
        Short for the axes ``pos``, ``head``, ``d_mlp``, ``batch`` and ``key_pos``; ``pos`` also
        means the queries of scores and patterns, ``head`` also the heads of keys and values.

    Attributes
    ----------
    where : Where
        From axes to places; an axis that is not named is meant as a whole. Keywords take
        precedence over it.
    """

    name: ClassVar[str]
    """The function of :mod:`mi_ref.do` that makes it."""
    pure: ClassVar[bool] = False
    """Whether it leaves the array that it is given as it is; if not, it gets a copy."""
    in_files: ClassVar[bool] = False
    """Whether its fields are data that a file can hold."""

    positions: InitVar[Places] = None
    heads: InitVar[Places] = field(default=None, kw_only=True)
    neurons: InitVar[Places] = field(default=None, kw_only=True)
    rows: InitVar[Places] = field(default=None, kw_only=True)
    keys: InitVar[Places] = field(default=None, kw_only=True)
    where: Where = field(default=EVERYWHERE, kw_only=True)

    def __post_init__(
        self, positions: Places, heads: Places, neurons: Places, rows: Places, keys: Places
    ) -> None:
        given = zip(WORDS.values(), (positions, heads, neurons, rows, keys), strict=True)
        words = {axis: places for axis, places in given if places is not None}
        object.__setattr__(self, "where", Where(self.where).but(**words))

    @abstractmethod
    def change(self, x: Array, hook: Hook) -> Array:
        """Return what takes the place of `x` where this acts."""

    def row_by_row(self, axes: Sequence[str]) -> bool:
        """Whether a row's result depends on that row alone, at a site with these axes.

        Then several runs can share a batch, each with its own edit restricted to its own row.
        """
        return False

    def __call__(self, x: Array, hook: Hook) -> Array:
        """Return `x`, changed where this acts."""
        if not self.acts_at(hook):
            return x
        changed = self.change(x, hook)
        mask = self.mask(x, hook)
        return changed if mask is None else backend_of(hook).xp.where(mask, changed, x)

    def within(self, **axes: Places) -> Self:
        """Return the same intervention with other places along some axes."""
        words = dict.fromkeys(WORDS)
        return replace(self, where=self.where.but(**axes), **words)

    def acts_at(self, hook: Hook) -> bool:
        """Whether this acts at the one position that is passed, where they pass one by one."""
        if hook.pos is None or hook.n_pos is None:
            return True
        chosen = self.where.along("pos", hook.point.site.axes)
        return chosen is None or hook.pos in indices(chosen, hook.n_pos)

    def mask(self, x: Array, hook: Hook) -> Array | None:
        """Return where this acts, broadcasting to `x`; None for everywhere."""
        xp, mask, axes = backend_of(hook).xp, None, hook.point.site.axes
        for axis, chosen in self.where.numbered(axes).items():
            if axes[axis] == "pos" and hook.pos is not None:
                continue
            size = x.shape[axis]
            wanted = frozenset(indices(chosen, size))
            flags = xp.asarray([n in wanted for n in range(size)], device=x.device)
            flags = xp.reshape(flags, tuple(size if n == axis else 1 for n in range(x.ndim)))
            mask = flags if mask is None else xp.logical_and(mask, flags)
        return mask

    def check(self, entry: HookPoint, shape: tuple[int, ...]) -> None:
        """Refuse places that the point, whose activation has this shape, does not have.

        Raises
        ------
        HookError
            Saying which.
        """
        try:
            places = self.where.numbered(entry.axes)
        except HookError as error:
            raise HookError(
                f"{self!r} at {entry.point!r}, whose axes are {' '.join(entry.axes)}: {error}."
            ) from None
        for (axis, chosen), name in zip(places.items(), self.where, strict=True):
            try:
                found = indices(chosen, shape[axis])
            except IndexError as error:
                raise HookError(f"{self!r} at {entry.point!r}: {word_of(name)} {error}.") from None
            if not found:
                raise HookError(
                    f"{self!r} at {entry.point!r} selects none of its {shape[axis]}"
                    f" {word_of(name)}."
                )

    def described(self) -> Iterator[tuple[str, Any]]:
        """Yield everything that this is made of, as keyword and value.

        What prints it, writes it to a file and tells it from others reads this.
        """
        named = {word_of(axis): places for axis, places in self.where.items()}
        others = {word: places for word, places in named.items() if word not in WORDS}
        yield from ((word, places) for word, places in named.items() if word in WORDS)
        if others:
            yield "where", Where(others)
        yield from ((f.name, getattr(self, f.name)) for f in fields(self) if f.name != "where")

    def __repr__(self) -> str:
        said = (f"{self.spelled(word)}={_shown(value)}" for word, value in self.described())
        return f"{self.name}({', '.join(said)})"

    def spelled(self, word: str) -> str:
        """Return the keyword of :mod:`mi_ref.do` for one of `described`."""
        return word


def _keyword(axis: str) -> property:
    def places(self: Intervention) -> Places:
        return self.where.get(axis)

    return property(places, doc=f"Places along the axis ``{axis}``; None for all.")


# They read back from `where` what the constructor's keywords of the same names put into it.
for _word, _axis in WORDS.items():
    setattr(Intervention, _word, _keyword(_axis))


def refuse_pads(edit: Intervention, entry: HookPoint, padding: Padding) -> None:
    """Refuse positions named one by one that are nothing but pads in a row that the edit acts on.

    A slice or a mask may well end before the tokens of a short row begin.

    Raises
    ------
    HookError
        Saying in which rows, and where their tokens are.
    """
    named = edit.where.along("pos", entry.axes)
    if not isinstance(named, tuple) or any(isinstance(n, bool) for n in named):
        return
    columns = indices(named, padding.n_pos)
    spans = list(zip(padding.starts, padding.stops, strict=True))
    missed = [
        row
        for row in indices(edit.where.along("batch", entry.axes), len(spans))
        if not any(spans[row][0] <= column < spans[row][1] for column in columns)
    ]
    if missed:
        where = ", ".join(f"row {n} has its tokens in {spans[n][0]} to {spans[n][1] - 1}"
                          for n in missed)  # fmt: skip
        raise HookError(
            f"{edit!r} at {entry.point!r}: positions are columns of the padded batch, and columns"
            f" {columns} hold nothing but pads there: {where}. Pad on the other side"
            " (padding_side=), or give each row its own edit (rows=)."
        )


def backend_of(hook: Hook) -> Backend:
    """Return the backend of the array that an edit was given."""
    if hook.backend is None:
        raise HookError(
            f"{hook.name}: this hook has no backend. Interventions are called by model.run, which"
            " gives them one."
        )
    return hook.backend


def as_array(value: Any, x: Array, backend: Backend) -> Array:
    """Return `value`, whatever array or nested sequence it is, as an array like `x`.

    Raises
    ------
    ShapeError
        If it does not broadcast to `x`.
    """
    if not isinstance(value, type(x)):
        if not hasattr(value, "__array__"):
            value = backend.xp.asarray(value, dtype=x.dtype, device=x.device)
        else:
            value = backend.from_host(value)
    value = backend.xp.astype(value, x.dtype, copy=False)
    if not broadcasts(value.shape, x.shape):
        raise ShapeError(
            f"an array of shape {tuple(value.shape)} does not broadcast to the activation's"
            f" {tuple(x.shape)}."
        )
    return value


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of an array or nested sequence.

    Raises
    ------
    ShapeError
        If the sequence is ragged.
    """
    if hasattr(value, "shape"):
        return tuple(value.shape)
    if not isinstance(value, Sequence):
        return ()
    inner = {shape_of(item) for item in value}
    if len(inner) > 1:
        raise ShapeError(f"a nested sequence is ragged: it holds shapes {sorted(inner)}.")
    return (len(value), *(next(iter(inner)) if inner else ()))


def broadcasts(shape: Sequence[int], sizes: Sequence[int]) -> bool:
    """Whether an array of `shape` stretches to exactly `sizes`."""
    ends = list(sizes)[len(sizes) - len(shape) :]
    return len(shape) <= len(sizes) and all(a in (1, b) for a, b in zip(shape, ends, strict=True))


def _shown(value: Any) -> str:
    plain = value is None or isinstance(value, int | float | str | tuple | slice | Where)
    return repr(value) if plain else f"<{type(value).__name__}>"
