"""Chats as text: check the messages, choose the template, and render it as HuggingFace does.

Source: transformers 5.23 ``tokenization_utils_base.py`` ``apply_chat_template``,
``get_chat_template`` and ``_from_pretrained``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mi_ref.errors import TokenError

Messages: TypeAlias = Sequence[Mapping[str, Any]]
"""A conversation: ``[{"role": "user", "content": "Hi"}, …]``."""

_SHAPE = "A chat is a list such as [{'role': 'user', 'content': 'Hi'}]"
_MEDIA = {"image", "image_url", "audio", "audio_url", "input_audio", "video", "video_url"}
# Different templates use different names for the same thing.
_REASONING = "reasoning_content", "thinking", "reasoning"


def render_chat(
    template: str,
    messages: Messages,
    *,
    special_tokens: Mapping[str, str],
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any],
    source: str,
) -> str:
    """Return the text of a conversation, with the special tokens that the template writes.

    Parameters
    ----------
    template : str
        Jinja source.
    messages
        The conversation; it is not changed.
    special_tokens : mapping
        The text of ``bos_token`` and so on in the template.
    add_generation_prompt : bool
        Whether to end with the start of an answer. Templates without one ignore it.
    tools : sequence of mapping or None
        JSON schemas of functions that the model may call.
    variables : mapping
        Whatever else the template reads; these win over special tokens of the same name.
    source : str
        Whose template it is, for messages.

    Raises
    ------
    TokenError
        If messages, tools or variables are malformed (all faults are listed), if jinja2 is
        missing, or for the reasons given in `mi_ref.text.chat_sandbox.render`.
    """
    faults: list[str] = []
    chat = _conversation(messages, faults)
    schemas = None if tools is None else _tools(tools, faults)
    values = {key: _plain(value, f"{key}=", faults) for key, value in variables.items()}
    if faults:
        raise TokenError(f"{'; '.join(faults)}. {_SHAPE}")
    try:
        from mi_ref.text.chat_sandbox import render
    except ModuleNotFoundError as error:
        raise TokenError(
            f"chat templates need {error.name}, which is not installed: pip install 'mi_ref[chat]'"
        ) from error
    given = {"messages": chat, "tools": schemas, "add_generation_prompt": add_generation_prompt}
    asked = [*values, "tools"] if tools else list(values)
    # As in HuggingFace, `documents` is None if not passed, rather than undefined.
    context = {"documents": None, **special_tokens, **values, **given}
    return render(template, context, asked=asked, source=source)


def find_template(
    configured: object,
    files: Mapping[str, Path],
    *,
    wanted: str | None,
    with_tools: bool,
    source: str,
) -> str:
    """Return the Jinja source of the template to use.

    Parameters
    ----------
    configured : object
        ``chat_template`` of ``tokenizer_config.json``: Jinja, or a list of named templates. Files,
        if there are any, replace it altogether.
    files : mapping
        Template files by name; ``"default"`` is ``chat_template.jinja``.
    wanted : str or None
        Name of a template, or Jinja to use instead. None: ``"tool_use"`` if there are tools and
        such a template, else ``"default"``.

    Raises
    ------
    TokenError
        If there is none, or none of that name.
    """
    templates = {name: _read(path) for name, path in files.items()} or _named(configured, source)
    if wanted is None:
        wanted = "tool_use" if with_tools and "tool_use" in templates else "default"
    elif wanted not in templates and ("{{" in wanted or "{%" in wanted):
        return wanted
    if wanted in templates:
        return templates[wanted]
    if not templates:
        raise TokenError(
            f"{source} has no chat template, neither chat_template.jinja nor 'chat_template' in "
            "tokenizer_config.json: it may be a base model, which takes plain text. To chat with "
            "it anyway, pass Jinja of your own as template="
        )
    raise TokenError(
        f"{source} has no chat template {wanted!r}; it has {', '.join(sorted(templates))}. Pass "
        "one of these names, or Jinja of your own, as template="
    )


def _named(configured: object, source: str) -> dict[str, str]:
    match configured:
        case None:
            return {}
        case str():
            return {"default": configured}
        case list() if all(
            isinstance(entry, dict)
            and isinstance(entry.get("name"), str)
            and isinstance(entry.get("template"), str)
            for entry in configured
        ):
            return {entry["name"]: entry["template"] for entry in configured}
    raise TokenError(
        f"'chat_template' in tokenizer_config.json of {source}: expected a text or a list of "
        f"{{'name', 'template'}}, got {str(configured)[:80]!r}; fetch the file again"
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TokenError(f"{path} cannot be read as text: {error}; fetch it again") from error


def _conversation(messages: Messages, faults: list[str]) -> list[dict[str, Any]]:
    """Copy messages, and collect what is wrong with them."""
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        faults.append(f"messages: expected a list of messages, got a {type(messages).__name__}")
        return []
    if not messages:
        faults.append("messages is empty")
    return [_message(message, f"messages[{n}]", faults) for n, message in enumerate(messages)]


def _message(message: Mapping[str, Any], where: str, faults: list[str]) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        faults.append(
            f"{where}: expected a dict with role and content, got a {type(message).__name__}"
        )
        return {}
    # None means absent, as in HuggingFace: a template would print "None".
    known = {key: value for key, value in message.items() if value is not None}
    plain = {key: _plain(value, f"{where}[{key!r}]", faults) for key, value in known.items()}
    if not isinstance(known.get("role"), str):
        faults.append(f"{where}['role']: expected a text, got {known.get('role')!r}")
    if "content" in known:
        _check_content(known["content"], f"{where}['content']", faults)
    elif not known.get("tool_calls"):
        faults.append(f"{where} has neither content nor tool_calls")
    reasoning = next((plain[key] for key in _REASONING if key in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning} | plain | {"reasoning_content": reasoning}
    return plain


def _check_content(content: object, where: str, faults: list[str]) -> None:
    if isinstance(content, str):
        return
    if not isinstance(content, list | tuple):
        faults.append(
            f"{where}: expected a text or a list of parts, got a {type(content).__name__}"
        )
        return
    for n, part in enumerate(content):
        kind = part.get("type") if isinstance(part, Mapping) else None
        if not isinstance(kind, str):
            faults.append(f"{where}[{n}]: expected a part such as {{'type': 'text', 'text': 'Hi'}}")
        elif kind in _MEDIA:
            faults.append(f"{where}[{n}] is of type {kind!r}, but this model reads only text")
        elif kind == "text" and not isinstance(part.get("text"), str):
            faults.append(f"{where}[{n}]['text']: expected a text, got {part.get('text')!r}")


def _tools(tools: Sequence[Mapping[str, Any]], faults: list[str]) -> list[Any]:
    if isinstance(tools, str | Mapping) or not isinstance(tools, Sequence):
        faults.append(f"tools: expected a list of JSON schemas, got a {type(tools).__name__}")
        return []
    for n, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            faults.append(
                f"tools[{n}]: expected a JSON schema as a dict, got a {type(tool).__name__}"
            )
    return [
        _plain(dict(tool), f"tools[{n}]", faults)
        for n, tool in enumerate(tools)
        if isinstance(tool, Mapping)
    ]


def _plain(value: object, where: str, faults: list[str]) -> Any:
    """Copy plain data; any other object could let a template out of its sandbox."""
    try:
        return json.loads(json.dumps(value))
    except (TypeError, ValueError, RecursionError) as error:
        faults.append(f"{where}: expected plain data: {error}")
        return None
