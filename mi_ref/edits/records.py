"""Selectors and edits as plain data for JSON, and back; arrays are stored elsewhere, by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields
from operator import index
from typing import Any

from mi_ref.edits import edges as attention_edits, values as value_edits
from mi_ref.edits.intervention import Intervention
from mi_ref.edits.values import Apply
from mi_ref.edits.where import WORDS, where_of
from mi_ref.errors import ArgumentError, HookError
from mi_ref.hooks.capture import Edit
from mi_ref.hooks.names import named_site, parse_point
from mi_ref.hooks.points import GlobalSite, LayerPoint, LayerSite, LayerSpan
from mi_ref.hooks.selectors import Selector

_KINDS: dict[str, type[Intervention]] = {
    kind.name: kind
    for module in (value_edits, attention_edits)
    for kind in vars(module).values()
    if isinstance(kind, type) and issubclass(kind, Intervention)
    if kind.in_files and hasattr(kind, "name")
}
"""Interventions that say of themselves that files can hold them."""
_SLICE = ("start", "stop", "step")


def selector_record(selector: Selector) -> Any:
    """Return a selector as a string, or as a mapping where a string cannot say it.

    Raises
    ------
    HookError
        If it is a predicate.
    """
    match selector:
        case str():
            return selector
        case LayerSpan(site=site):
            ends = {end: _whole(getattr(selector, end)) for end in _SLICE}
            return {"site": site.name, **ends}
        case LayerPoint(site=site, layer=layer) if layer < 0:
            return {"site": site.name, "layer": layer}
        case GlobalSite() | LayerPoint():
            return str(selector)
        case (str(name),):
            return named_site(name).string
        case (str(name), layer) if hasattr(layer, "__index__"):
            return {"site": name, "layer": index(layer)}
    raise HookError(
        f"{selector!r} is not a selector that a file can hold: functions have no text. Name the"
        " points, or use a slice or a glob."
    )


def selector_of(record: Any) -> Selector:
    """Return the selector that `selector_record` wrote; one that names a point as that point."""
    if isinstance(record, str):
        return record if any(mark in record for mark in "*?[") else parse_point(record)
    site = named_site(record["site"])
    if not isinstance(site, LayerSite):
        raise HookError(f"{site!r} belongs to no layer.")
    if "layer" in record:
        return site[index(record["layer"])]
    return LayerSpan(site, *(_whole(record[end]) for end in _SLICE))


def edit_record(edit: Edit, keep: Callable[[Any], str]) -> dict[str, Any]:
    """Return an edit as plain data.

    Parameters
    ----------
    edit : Edit
        An intervention or an array.
    keep : callable
        Takes an array and returns the name that it is stored under.

    Raises
    ------
    HookError
        If it is a function, or an intervention that files cannot hold.
    """
    if isinstance(edit, Apply) or (callable(edit) and not isinstance(edit, Intervention)):
        raise HookError(
            f"{edit!r} calls a function, and a file of edits holds data only: use the other"
            " functions of mi_ref.do, or save the computed array and use do.replace."
        )
    if not isinstance(edit, Intervention):
        return {"kind": "array", "value": _value_record(edit, keep)}
    if _KINDS.get(edit.name) is not type(edit):
        raise HookError(
            f"{edit!r} is a {type(edit).__name__}, which files cannot hold: they hold {_listed()}."
        )
    record: dict[str, Any] = {"kind": edit.name}
    for word, value in edit.described():
        if word in WORDS:
            record[word] = _places_record(value)
        elif word == "where":
            record[word] = {axis: _places_record(places) for axis, places in value.items()}
        elif word == "over":
            record[word] = list(value)
        else:
            record[word] = _value_record(value, keep)
    return record


def edit_of(record: Mapping[str, Any], arrays: Mapping[str, Any]) -> Edit:
    """Return the edit that `edit_record` wrote.

    Raises
    ------
    HookError
        If it is of an unknown kind, or has fields that its kind lacks.
    """
    given = dict(record)
    kind = given.pop("kind")
    if kind == "array":
        return _value_of(given["value"], arrays)
    if kind not in _KINDS:
        raise HookError(f"{kind!r} is not an intervention: files hold {_listed()}.")
    own = {each.name for each in fields(_KINDS[kind])} - {"where"}
    words = {word: _places_of(given.pop(word)) for word in WORDS if word in given}
    others = {axis: _places_of(places) for axis, places in given.pop("where", {}).items()}
    if unknown := sorted(given.keys() - own):
        raise HookError(f"{kind} has no {', '.join(unknown)}.")
    if missing := sorted(own - given.keys()):
        raise HookError(f"{kind} lacks its {', '.join(missing)}.")
    read: dict[str, Any] = {
        name: tuple(value) if name == "over" else _value_of(value, arrays)
        for name, value in given.items()
    }
    return _KINDS[kind](where=where_of(others, **words), **read)


def _places_record(places: Any) -> Any:
    if isinstance(places, slice):
        return {end: _whole(getattr(places, end)) for end in _SLICE}
    return list(places)


def _places_of(record: Any) -> Any:
    if isinstance(record, Mapping):
        return slice(*(_whole(record[end]) for end in _SLICE))
    if not isinstance(record, list):
        raise TypeError(f"{record!r} is not a list of places or a slice")
    return tuple(record)


def _value_record(value: Any, keep: Callable[[Any], str]) -> Any:
    """Return a number, nested numbers, or the name of an array."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_value_record(item, keep) for item in value]
    if not hasattr(value, "dtype"):
        raise ArgumentError(f"{value!r} is neither an array nor numbers.")
    return {"array": keep(value)}


def _value_of(record: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(record, list):
        return [_value_of(item, arrays) for item in record]
    if isinstance(record, Mapping):
        return arrays[record["array"]]
    # JSON has finite numbers only: the others are written as text.
    if isinstance(record, str):
        number = float(record)
        if math.isfinite(number):
            raise ValueError(f"expected a number, got the text {record!r}")
        return number
    if not isinstance(record, bool | int | float):
        raise TypeError(f"{record!r} is neither an array nor numbers")
    return record


def _whole(number: Any) -> int | None:
    return None if number is None else index(number)


def _listed() -> str:
    return ", ".join(sorted([*_KINDS, "array"]))
