"""Results as plain data and back: what a saved file holds beside its readable record.

Every value says what it is: a number, text, true, false or None as itself, all else as an object
with one key that names its kind. Only frozen dataclasses that the reader passes in are rebuilt;
nothing in a file names code to run.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from mi_ref.backend import Backend, get_backend
from mi_ref.errors import ArgumentError
from mi_ref.hooks.names import named_site, parse_point
from mi_ref.hooks.points import GlobalSite, LayerPoint, LayerSite
from mi_ref.output.fingerprint import Fingerprint
from mi_ref.output.origin import Origin
from mi_ref.output.recorded_tokens import RecordedTokens


def encode(value: Any) -> Any:
    """Return a value as plain data, ready for JSON.

    Raises
    ------
    ArgumentError
        If part of it cannot be kept in a file, such as a function.
    """
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"number": str(value)}
    if isinstance(value, tuple | list):
        return {type(value).__name__: [encode(item) for item in value]}
    if isinstance(value, Mapping):
        return {"map": [[encode(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, slice):
        return {"slice": [value.start, value.stop, value.step]}
    if isinstance(value, GlobalSite | LayerPoint):
        return {"point": str(value)}
    if isinstance(value, LayerSite):
        return {"site": value.name}
    if isinstance(value, Backend):
        return {"backend": value.name}
    if isinstance(value, Origin):
        return {"origin": _origin(value)}
    if is_dataclass(value) and not isinstance(value, type):
        held = {one.name: encode(getattr(value, one.name)) for one in fields(value)}
        return {"is": type(value).__name__, "fields": held}
    if hasattr(value, "dtype") and hasattr(value, "tolist"):
        if not value.shape:
            return encode(value.tolist())
        dtype = str(value.dtype).rpartition(".")[2]
        return {"array": encode(value.tolist()), "shape": list(value.shape), "dtype": dtype}
    raise ArgumentError(
        f"a {type(value).__name__} cannot be kept in a file: {value!r}. Save what it gave instead."
    )


def decode(data: Any, known: Mapping[str, type]) -> Any:
    """Return the value that `encode` made plain data of.

    Parameters
    ----------
    data
        As `encode` returns it.
    known : mapping of str to type
        The dataclasses that may occur, by name.

    Raises
    ------
    ArgumentError
        If it is not what `encode` returns.
    """
    if data is None or isinstance(data, bool | int | float | str):
        return data
    match data:
        case {"number": "nan" | "inf" | "-inf" as number}:
            return float(number)
        case {"tuple": [*items]}:
            return tuple(decode(item, known) for item in items)
        case {"list": [*items]}:
            return [decode(item, known) for item in items]
        case {"map": [*pairs]}:
            return {decode(key, known): decode(item, known) for key, item in pairs}
        case {"range": [int(start), int(stop), int(step)]}:
            return range(start, stop, step)
        case {"slice": [start, stop, step]}:
            return slice(start, stop, step)
        case {"point": str(name)}:
            return parse_point(name)
        case {"site": str(name)}:
            return named_site(name)
        case {"backend": str()}:
            # Whatever computed it, a loaded result is looked at on the host.
            return get_backend("numpy")
        case {"origin": dict(facts)}:
            return _read_origin(facts)
        case {"array": array, "dtype": str(dtype), "shape": [*shape]}:
            xp = get_backend("numpy").xp
            listed = decode(array, known)
            return xp.reshape(xp.asarray(listed, dtype=getattr(xp, dtype)), tuple(shape))
        case {"is": str(name), "fields": dict(held)} if name in known:
            return _made(known[name], {key: decode(item, known) for key, item in held.items()})
    shown = repr(data)
    raise ArgumentError(
        f"expected a value of a saved result, got {shown[:80]}{'…' if len(shown) > 80 else ''}."
    )


def _made(kind: type, held: Mapping[str, Any]) -> Any:
    """Return a dataclass with these fields; they were checked when it was first made."""
    names = {one.name for one in fields(kind)}
    if names != held.keys():
        odd = ", ".join(sorted(names ^ held.keys()))
        raise ArgumentError(f"a {kind.__name__} lacks or has too many of the fields: {odd}.")
    made: Any = object.__new__(kind)
    for name, value in held.items():
        object.__setattr__(made, name, value)
    return made


def _origin(origin: Origin) -> dict[str, Any]:
    facts = {one.name: getattr(origin, one.name) for one in fields(origin)}
    del facts["tokenizer"]
    weights = facts.pop("weights")
    facts["versions"] = dict(facts["versions"])
    return {
        **{name: list(fact) if isinstance(fact, tuple) else fact for name, fact in facts.items()},
        "weights_sha256": weights.sha256(),
    }


def _read_origin(facts: Mapping[str, Any]) -> Origin:
    given = dict(facts)
    texts = {int(id): text for id, text in given.pop("tokens", {}).items()}
    sha256 = given.pop("weights_sha256")
    for name in ("unread_config", "inferred"):
        given[name] = tuple(given[name])
    return Origin(**given, weights=Fingerprint.known(sha256), tokenizer=RecordedTokens(texts))


def whole_numbers_in(data: Any) -> Iterator[int]:
    """Yield every whole number of encoded data: the ids of tokens are among them."""
    if isinstance(data, int) and not isinstance(data, bool):
        yield data
    elif isinstance(data, list):
        for item in data:
            yield from whole_numbers_in(item)
    elif isinstance(data, dict):
        for name, item in data.items():
            if name != "array":
                yield from whole_numbers_in(item)
