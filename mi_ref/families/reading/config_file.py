"""A fence around HuggingFace's ``config.json``: every key is read, inert, or refused.

An unread key could mean a missing computation. :meth:`HfConfig.done` reports all faults at once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any

from mi_ref.errors import ConfigError
from mi_ref.families.reading.inert_keys import ACTIVATIONS, INERT

_REQUIRED: Any = object()


class HfConfig:
    """The keys of one ``config.json``, and a record of which were read.

    Reading does not raise. It notes a fault and returns a placeholder; `done` raises with all
    faults.

    Parameters
    ----------
    raw : mapping
        The parsed file.
    source : str
        Where it comes from, for messages.
    family : str
        The family that reads it, for messages.
    shapes : mapping or None
        The tensors' shapes by name, which give sizes that a config may omit.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        *,
        source: str,
        family: str,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
    ) -> None:
        self._raw = raw
        self._shapes = shapes or {}
        self._source = source
        self._family = family
        self._seen: set[str] = set()
        self._nested: list[HfConfig] = []
        self.faults: list[str] = []

    def integer(self, key: str, default: Any = _REQUIRED) -> int:
        """Return a positive whole number; an absent or null key gives `default`."""
        value = self._get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self._fault(key, value, "a whole number above 0")
        return 1

    def rank(self, key: str, default: int, tensor: str, axis: int, parts: int = 1) -> int:
        """Return the key's whole number or, if it is absent, the size of a tensor's axis.

        Parameters
        ----------
        key : str
            The key.
        default : int
            The value if there is neither the key nor the tensor.
        tensor : str
            The end of the tensor's name.
        axis : int
            The axis.
        parts : int
            Number of equal parts of the axis, of which one is meant.
        """
        shape = next((s for name, s in self._shapes.items() if name.endswith(tensor)), ())
        known = -len(shape) <= axis < len(shape)
        return self.integer(key, max(shape[axis] // parts, 1) if known else default)

    def count(self, key: str, default: int) -> int:
        """Return a whole number, zero included; an absent or null key gives `default`."""
        value = self._get(key, default)
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return value
        self._fault(key, value, "a whole number from 0 up")
        return 0

    def number(self, key: str, default: Any = _REQUIRED) -> float:
        """Return a positive number; an absent or null key gives `default`."""
        value = self._get(key, default)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Python's JSON parser accepts Infinity and NaN.
        if number and 0 < value < math.inf:
            return float(value)
        self._fault(key, value, "a number above 0")
        return 1.0

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """Return a list of `count` positive numbers."""
        value = self._get(key, _REQUIRED)
        if (
            isinstance(value, list)
            and len(value) == count
            and all(isinstance(v, int | float) and 0 < v < math.inf for v in value)
        ):
            return tuple(map(float, value))
        self._fault(key, value, f"a list of {count} numbers above 0")
        return (1.0,) * count

    def optional(self, key: str, default: float | None) -> float | None:
        """Return a positive number or None: null gives None, an absent key `default`."""
        self._seen.add(key)
        if self._raw.get(key, default) is None:
            return None
        return self.number(key, default)

    def flag(self, key: str, default: Any = _REQUIRED) -> bool:
        """Return a boolean; an absent or null key gives `default`."""
        value = self._get(key, default)
        if not isinstance(value, bool):
            self._fault(key, value, "true or false")
        return value is True

    def choice(self, key: str, choices: Mapping[str, Any], default: Any = _REQUIRED) -> Any:
        """Return the entry of `choices` for the key's value."""
        value = self._get(key, default)
        if isinstance(value, str) and value in choices:
            return choices[value]
        self._fault(key, value, "one of " + ", ".join(map(repr, choices)))
        return next(iter(choices.values()))

    def activation(self, key: str, default: str) -> Any:
        """Return the activation function that HuggingFace's name stands for."""
        return self.choice(key, ACTIVATIONS, default)

    def listed(self, key: str, allowed: Collection[Any]) -> list[Any] | None:
        """Return a list of values from `allowed`; None for an absent or null key."""
        value = self._get(key, None)
        if value is None or (isinstance(value, list) and all(v in allowed for v in value)):
            return value
        self._fault(key, value, f"a list of values among {', '.join(map(repr, allowed))}")
        return None

    def counts(self, key: str) -> tuple[int, ...]:
        """Return a list of whole numbers from 0 up; an absent or null key gives an empty list."""
        value = self._get(key, [])
        if isinstance(value, list) and all(type(v) is int and v >= 0 for v in value):
            return tuple(value)
        self._fault(key, value, "a list of whole numbers from 0 up")
        return ()

    def head_width(self, key: str, d_model: int, n_heads: int) -> int:
        """Return ``d_head``, by default ``d_model / n_heads``."""
        self.require(
            self.has(key) or d_model % n_heads == 0,
            f"hidden_size {d_model} is not a multiple of num_attention_heads {n_heads}, and {key},"
            " which would set the width of a head, is missing",
        )
        return self.integer(key, max(d_model // n_heads, 1))

    def equal_heads(self, whole: tuple[str, int], parts: tuple[str, int]) -> int:
        """Return ``d_head`` of a family that has no key for it.

        Parameters
        ----------
        whole : tuple of str and int
            Key and value of the model's width.
        parts : tuple of str and int
            Key and value of the number of heads.
        """
        (whole_key, d_model), (parts_key, n_heads) = whole, parts
        self.require(
            d_model % n_heads == 0,
            f"{whole_key} {d_model} is not a multiple of {parts_key} {n_heads}",
        )
        return max(d_model // n_heads, 1)

    def active_experts(self, key: str, default: int, n_experts: tuple[str, int]) -> int:
        """Return how many experts a token passes through, at most `n_experts` (key and value)."""
        count = self.integer(key, default)
        self.require(count <= n_experts[1], f"{key} {count} exceeds {n_experts[0]} {n_experts[1]}")
        return count

    def groups(self, key: str, n_heads: int, default: int | None = None) -> int:
        """Return the number of key and value heads, which must divide that of the query heads.

        Null means one for each query head; absence means `default` or, without it, the same.
        """
        absent = n_heads if default is None or self.null(key) else default
        count = self.integer(key, absent)
        self.require(
            n_heads % count == 0,
            f"num_attention_heads {n_heads} is not a multiple of {key} {count}",
        )
        return count

    def section(self, key: str) -> Mapping[str, Any]:
        """Return a nested object; an absent or null key gives an empty object."""
        value = self._get(key, {})
        if isinstance(value, Mapping):
            return value
        self._fault(key, value, "an object")
        return {}

    def nested(self, key: str, value: Mapping[str, Any]) -> HfConfig:
        """Return a fence around part of this config; its faults and unread keys count here too."""
        inner = HfConfig(value, source=key, family=self._family)
        inner.faults = self.faults
        self._nested.append(inner)
        return inner

    def only(self, key: str, allowed: Collection[Any], reason: str) -> None:
        """Read a key of which only some values are supported; it may also be absent or null."""
        value = self._get(key, None)
        if value is not None and value not in allowed:
            self.faults.append(f"{self._name(key)} is {value!r}: {reason}")

    def require(self, condition: bool, fault: str) -> None:
        """Note `fault` unless `condition` holds."""
        if not condition:
            self.faults.append(fault)

    def has(self, key: str) -> bool:
        """Whether a key is present and not null."""
        return self._raw.get(key) is not None

    def null(self, key: str) -> bool:
        """Whether a key is present and explicitly null."""
        return key in self._raw and self._raw[key] is None

    def unread(self) -> dict[str, Any]:
        """Return every key that is neither read nor inert; nested ones as ``outer.inner``."""
        own = {
            key: value
            for key, value in self._raw.items()
            if key not in self._seen and key not in INERT
        }
        for inner in self._nested:
            own |= {inner._name(key): value for key, value in inner.unread().items()}
        return own

    def done(self, *, allow_unread: Collection[str] = ()) -> tuple[str, ...]:
        """Raise if any key is missing, wrong or unread.

        Parameters
        ----------
        allow_unread : collection of str
            Keys that may go unread.

        Returns
        -------
        tuple of str
            The allowed keys that are unread.

        Raises
        ------
        ConfigError
            With every fault.
        """
        unread = self.unread()
        refused = {key: value for key, value in unread.items() if key not in allow_unread}
        faults = list(self.faults)
        if refused:
            listed = ", ".join(f"{key}={value!r}" for key, value in refused.items())
            faults.append(
                f"the {self._family} family does not read {listed}; ignoring a key could give wrong"
                " logits. If you know that it does not affect the computation, pass"
                f" allow_unread_config={tuple(refused)!r}"
            )
        if faults:
            raise ConfigError(f"{self._source} cannot be honoured: " + "; ".join(faults) + ".")
        return tuple(key for key in unread if key in allow_unread)

    def _get(self, key: str, default: Any) -> Any:
        self._seen.add(key)
        value = self._raw.get(key)
        return default if value is None else value

    def _name(self, key: str) -> str:
        return key if self._source.endswith((".json", ".gguf")) else f"{self._source}.{key}"

    def _fault(self, key: str, value: Any, expected: str) -> None:
        got = "but it is missing" if value is _REQUIRED else f"got {value!r}"
        self.faults.append(f"{self._name(key)}: expected {expected}, {got}")
