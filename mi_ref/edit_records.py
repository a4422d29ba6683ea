"""Selectors and edits as plain data for JSON, and back; arrays are kept by name elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from operator import index
from typing import Any

from mi_ref.attention_edits import Knockout, ScalePattern, SetPattern
from mi_ref.errors import HookError
from mi_ref.hooks import Edit
from mi_ref.interventions import Intervention
from mi_ref.naming import named_site, parse_point
from mi_ref.points import GlobalSite, LayerPoint, LayerSite, LayerSpan
from mi_ref.selection import Selector
from mi_ref.value_edits import Add, Apply, Bypass, Fill, Mean, ProjectOut, Replace, Scale

_KINDS: dict[str, type[Intervention]] = {
    kind.name: kind
    for kind in (
        Replace, Add, Scale, Fill, Mean, ProjectOut, Bypass, Knockout, ScalePattern, SetPattern
    )
}  # fmt: skip
_PLACES = ("positions", "heads", "neurons", "rows", "keys")
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
        f"{selector!r} is no selector that a file can hold: functions have no text. Name the"
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
        Takes an array and returns the name that it is kept under.

    Raises
    ------
    HookError
        If it is a function, or an intervention of a kind that files do not know.
    """
    if isinstance(edit, Apply) or (callable(edit) and not isinstance(edit, Intervention)):
        raise HookError(
            f"{edit!r} calls a function, and a file of edits holds data only: say it with the"
            " other functions of mi_ref.do, or save what it computes and use do.replace."
        )
    if not isinstance(edit, Intervention):
        return {"kind": "array", "value": _value_record(edit, keep)}
    if _KINDS.get(edit.name) is not type(edit):
        raise HookError(f"{edit!r} is of a kind that files do not know: {_listed()}.")
    record: dict[str, Any] = {"kind": edit.name}
    for each in fields(edit):
        value = getattr(edit, each.name)
        if each.name in _PLACES:
            if value is not None:
                record[each.name] = _places_record(value)
        elif each.name == "over":
            record[each.name] = list(value)
        else:
            record[each.name] = _value_record(value, keep)
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
        raise HookError(f"there is no intervention {kind!r}: {_listed()}.")
    known = {each.name for each in fields(_KINDS[kind])}
    missing = sorted(known - {*given, *_PLACES})
    if unknown := sorted(set(given) - known):
        raise HookError(f"{kind} has no {', '.join(unknown)}.")
    if missing:
        raise HookError(f"{kind} lacks its {', '.join(missing)}.")
    read: dict[str, Any] = {}
    for name, value in given.items():
        if name in _PLACES:
            read[name] = _places_of(value)
        elif name == "over":
            read[name] = _over_of(value)
        else:
            read[name] = _value_of(value, arrays)
    return _KINDS[kind](**read)


def _places_record(places: Any) -> Any:
    if isinstance(places, slice):
        return {end: _whole(getattr(places, end)) for end in _SLICE}
    return list(places)


def _places_of(record: Any) -> Any:
    if isinstance(record, Mapping):
        return slice(*(_whole(record[end]) for end in _SLICE))
    if not isinstance(record, list):
        raise TypeError(f"{record!r} names no places")
    return tuple(record)


def _over_of(record: Any) -> tuple[str, ...]:
    if not isinstance(record, list) or not record or not set(record) <= {"batch", "pos"}:
        raise ValueError(f"over={record!r}")
    return tuple(record)


def _value_record(value: Any, keep: Callable[[Any], str]) -> Any:
    """Return a number, nested numbers, or the name of an array."""
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_value_record(item, keep) for item in value]
    if not hasattr(value, "dtype"):
        raise HookError(f"{value!r} is neither an array nor numbers.")
    return {"array": keep(value)}


def _value_of(record: Any, arrays: Mapping[str, Any]) -> Any:
    if isinstance(record, list):
        return [_value_of(item, arrays) for item in record]
    if isinstance(record, Mapping):
        return arrays[record["array"]]
    # JSON has no numbers beyond the finite: they stand as text.
    if isinstance(record, str):
        number = float(record)
        if math.isfinite(number):
            raise ValueError(f"{record!r} is text where a number belongs")
        return number
    if not isinstance(record, bool | int | float):
        raise TypeError(f"{record!r} is neither an array nor numbers")
    return record


def _whole(number: Any) -> int | None:
    return None if number is None else index(number)


def _listed() -> str:
    kinds: Sequence[str] = sorted([*_KINDS, "array"])
    return f"they know {', '.join(kinds)}"
