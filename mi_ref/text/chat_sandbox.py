"""Run chat templates with jinja2 in a sandbox: they see what they are given, and nothing else.

A template comes with a checkpoint, so it is untrusted code. It can read plain data, but it cannot
change any, import anything or open anything. It can take long, though: the sandbox bounds a single
``range``, not nested loops.

The names that templates may count on are HuggingFace's: ``raise_exception``, ``strftime_now``,
``tojson`` without HTML escapes, loop controls and ``{% generation %}``.

Needs jinja2, which is an optional dependency: import this module only to render.

Source: transformers 5.23 ``utils/chat_template_utils.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from datetime import datetime
from functools import lru_cache
from importlib.metadata import version
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError, meta, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from mi_ref.errors import TokenError

SAFE_SINCE = 3, 1, 6
"""First jinja2 without the known ways out of its sandbox."""


def render(
    template: str, context: Mapping[str, Any], *, asked: Collection[str], source: str
) -> str:
    """Return the text that a template makes of `context`.

    Parameters
    ----------
    template : str
        Jinja source.
    context : mapping
        Variables, plain data only.
    asked : collection of str
        Those of `context` that the template must read: one that it never mentions would have no
        effect.

    Raises
    ------
    TokenError
        If the template of `source` is not valid Jinja, does not read what was asked for, refuses
        the messages, tries something that the sandbox forbids, or fails.
    """
    _check_version(version("jinja2"))
    compiled, reads = _checked(template, source)
    if unread := sorted(set(asked) - reads):
        raise TokenError(
            f"the chat template of {source} does not read {', '.join(unread)}, so it would have no "
            f"effect; it reads {', '.join(sorted(reads))}. Leave it out"
        )
    try:
        return compiled.render(context)
    except _Refusal as error:
        why = f"the chat template of {source} refuses these messages: {error}"
        raise TokenError(why) from error
    except SecurityError as error:
        raise TokenError(
            f"the chat template of {source} tried something that templates may not do: {error}"
            " Read it before you trust it, or pass another as template="
        ) from error
    except (TemplateError, *_PYTHON) as error:
        raise TokenError(
            f"the chat template of {source} failed on these messages ({type(error).__name__}:"
            f" {error}). Read it for the keys and variables it needs, or pass another as template="
        ) from error


# What an expression in a template can raise.
_PYTHON = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class _Refusal(Exception):
    """The message of a template's ``raise_exception``."""


class _Generation(Extension):
    """``{% generation %}`` marks what the assistant wrote; only its body is text."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Scope:
        """Return the body with a scope of its own, as HuggingFace's block has."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Namespace(Namespace):
    """``namespace()`` without names that Python or jinja2 would call on their own."""

    def __init__(*args: Any, **attributes: Any) -> None:
        self, *given = args
        for name in dict(*given, **attributes):
            _refuse_private(name)
        Namespace.__init__(self, *given, **attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


class _MakeDict:
    """``dict(...)`` without the type's methods, which could change a dictionary passed to them."""

    fromkeys = staticmethod(dict.fromkeys)

    def __call__(self, *args: Any, **items: Any) -> dict[Any, Any]:
        return dict(*args, **items)


def _checked(template: str, source: str) -> tuple[Template, frozenset[str]]:
    try:
        return _compiled(template)
    except TemplateSyntaxError as error:
        raise TokenError(
            f"the chat template of {source} is not valid Jinja, line {error.lineno}:"
            f" {error.message}; correct it, or pass another as template="
        ) from error


@lru_cache(maxsize=8)
def _compiled(template: str) -> tuple[Template, frozenset[str]]:
    """Return a template ready to render, and the variables it reads from its context."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _Generation]
    )
    environment.filters["tojson"] = _to_json
    environment.globals.update(
        raise_exception=_raise_exception,
        strftime_now=_strftime_now,
        namespace=_Namespace,
        dict=_MakeDict(),
    )
    reads = meta.find_undeclared_variables(environment.parse(template))
    return environment.from_string(template), frozenset(reads - environment.globals.keys())


def _raise_exception(message: str) -> None:
    raise _Refusal(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(
            f"expected a name without a leading underscore in a namespace, got {name!r}."
        )


def _check_version(installed: str) -> None:
    if tuple(map(int, re.findall(r"\d+", installed)[:3])) < SAFE_SINCE:
        raise TokenError(
            f"jinja2 {installed} has known ways out of its sandbox, and a chat template is "
            "untrusted code: pip install 'mi_ref[chat]' installs a later one"
        )
