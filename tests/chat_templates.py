"""Chat templates in the styles that models use, with the text each gives.

Every expected text is what ``apply_chat_template`` of transformers 5.23 returned for it, with
``bos_token`` ``<s>`` and ``eos_token`` ``</s>``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizer_specs import byte_level_spec, template

from mi_ref.errors import TokenError
from mi_ref.tokenizer import Tokenizer

ChatMessages = list[dict[str, Any]]

ECHO = "{% for message in messages %}{{ message.content }}{% endfor %}"

CHATML = """\
{% if messages[0].role != 'system' %}
<|im_start|>system
Answer briefly.<|im_end|>
{% endif %}
{% for message in messages %}
    {% if message.role == 'note' %}
        {% continue %}
    {% endif %}
<|im_start|>{{ message.role }}
{{ message.content | trim }}<|im_end|>
{% endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
    {% if enable_thinking is defined and not enable_thinking %}
<think>

</think>

    {% endif %}
{% endif %}
"""

INST = (
    "{% set rest = messages %}{% set first = '' %}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set rest = messages[1:] %}"
    "{% set first = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}{% endif %}"
    "{% for message in rest %}"
    "{% if (message['role'] == 'user') != loop.index0 is divisibleby(2) %}"
    "{{ raise_exception('user and assistant must take turns') }}{% endif %}"
    "{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (first if loop.first else '') + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)

HEADERS = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now('%d %b %Y') %}
{%- endif %}
{%- macro header(role) %}
    {{- '<|start_header_id|>' ~ role ~ '<|end_header_id|>\\n\\n' }}
{%- endmacro %}
{{- header('system') ~ 'Today is ' ~ date_string ~ '.<|eot_id|>' }}
{%- for message in messages %}
    {{- header(message.role) ~ message.content | trim ~ '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- header('assistant') }}
{%- endif %}
"""

TURNS = """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}
    {{- raise_exception("there is no role 'system' here") }}
{%- endif %}
{%- for message in messages %}
    {%- set role = {'assistant': 'model'}.get(message.role, message.role) %}
    {%- if role != ('model' if loop.index0 % 2 else 'user') %}
        {{- raise_exception('turn ' ~ loop.index ~ ' is by ' ~ message.role) }}
    {%- endif %}
    {{- '<start_of_turn>' + role + '\\n' }}
    {%- if message.content is string %}
        {{- message.content | trim }}
    {%- else %}
        {%- for part in message.content if part.type == 'text' %}
            {{- part.text | trim ~ ('' if loop.last else ' ') }}
        {%- endfor %}
    {%- endif %}
    {{- '<end_of_turn>\\n' }}
{%- endfor %}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\\n' }}
{%- endif %}
"""

TOOLS = """\
{{- bos_token }}
{%- set ns = namespace(last=none) %}
{%- for message in messages %}
    {%- if message.role == 'user' %}{% set ns.last = loop.index %}{% endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools and loop.index == ns.last %}
            {{- '[AVAILABLE_TOOLS]' ~ tools | tojson ~ '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {{- '[INST]' ~ message.content ~ '[/INST]' }}
    {%- elif message.tool_calls %}
        {{- '[TOOL_CALLS]' }}
        {%- for call in message.tool_calls %}
            {{- call.function | tojson(indent=1, sort_keys=true) }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif message.role == 'tool' %}
        {{- '[TOOL_RESULTS]' ~ dict(content=message.content) | tojson ~ '[/TOOL_RESULTS]' }}
    {%- else %}
        {{- ' ' ~ message.content ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""

MARKED = """\
{%- set mark = '*' %}
{%- for message in messages %}
    {%- if message.role == 'assistant' %}
{% generation %}
    {%- set mark = '+' %}
    {%- if message.reasoning_content %}{{ '<think>' ~ message.reasoning_content ~ '</think>' }}
    {%- endif %}
    {{- mark ~ message.content ~ mark }}
{% endgeneration %}
        {{- mark }}
    {%- else %}
        {{- mark ~ message.content ~ mark ~ (message.name is defined) }}
    {%- endif %}
{%- endfor %}
"""


def said(*turns: tuple[str, Any]) -> ChatMessages:
    """Messages of (role, content)."""
    return [{"role": role, "content": content} for role, content in turns]


@dataclass(frozen=True)
class Case:
    template: str
    messages: ChatMessages
    expected: str
    options: dict[str, Any] = field(default_factory=dict)


WEATHER = {
    "type": "function",
    "function": {"name": "weather", "description": "degrees < 0 & > 0, à Paris"},
}
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}
HI = said(("user", " Hi "), ("assistant", "Hello."), ("user", "Bye"))

CASES = {
    "chatml": Case(
        CHATML,
        HI,
        "<|im_start|>system\nAnswer briefly.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n",
    ),
    "chatml-continue": Case(
        CHATML,
        said(("system", "Be kind."), ("note", "unread"), ("user", "Hi\n")),
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
        {"add_generation_prompt": False},
    ),
    "chatml-variable": Case(
        CHATML,
        said(("user", "Hi")),
        "<|im_start|>system\nAnswer briefly.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n",
        {"enable_thinking": False},
    ),
    "inst": Case(INST, HI, "<s>[INST]  Hi  [/INST] Hello. </s><s>[INST] Bye [/INST]"),
    "inst-system": Case(
        INST,
        said(("system", "Be kind."), ("user", "Hi")),
        "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nHi [/INST]",
    ),
    "headers": Case(
        HEADERS,
        HI,
        "<s><|start_header_id|>system<|end_header_id|>\n\n"
        "Today is 1 May 2026.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "Hello.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Bye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        {"date_string": "1 May 2026"},
    ),
    "headers-bos": Case(
        HEADERS,
        said(("user", "Hi")),
        "<bos><|start_header_id|>system<|end_header_id|>\n\n"
        "Today is 1 May 2026.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
        {"date_string": "1 May 2026", "bos_token": "<bos>"},
    ),
    "turns": Case(
        TURNS,
        HI,
        "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n"
        "Hello.<end_of_turn>\n<start_of_turn>user\nBye<end_of_turn>\n"
        "<start_of_turn>model\n",
    ),
    "turns-parts": Case(
        TURNS,
        said(("user", [{"type": "text", "text": " a "}, {"type": "text", "text": "b<é>&'"}])),
        "<s><start_of_turn>user\na b<é>&'<end_of_turn>\n<start_of_turn>model\n",
    ),
    "tools": Case(
        TOOLS,
        [
            {"role": "user", "content": "How warm?"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "20° <sunny>"},
            {"role": "assistant", "content": "20°."},
            {"role": "user", "content": "And now?"},
        ],
        '<s>[INST]How warm?[/INST][TOOL_CALLS]{\n "arguments": {\n  "city": "Paris"\n'
        ' },\n "name": "weather"\n'
        '}</s>[TOOL_RESULTS]{"content": "20° <sunny>"}[/TOOL_RESULTS] '
        '20°.</s>[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "weather", '
        '"description": "degrees < 0 & > 0, à Paris"}}][/AVAILABLE_TOOLS][INST]And '
        "now?[/INST]",
        {"tools": [WEATHER]},
    ),
    "tools-none": Case(TOOLS, said(("user", "Hi")), "<s>[INST]Hi[/INST]"),
    "generation": Case(
        MARKED,
        [
            {"role": "user", "content": "1 + 1", "name": None},
            {"role": "assistant", "content": "2", "thinking": "easy"},
            {"role": "user", "content": "2 + 2", "name": "Ann"},
            {"role": "assistant", "content": "4"},
        ],
        "*1 + 1*False<think>easy</think>+2+\n**2 + 2*True+4+\n*",
    ),
}


def tokenizer(
    folder: Path,
    chat_template: object = None,
    files: dict[str, str] | None = None,
    **config: object,
) -> Tokenizer:
    """A byte-level tokenizer with ``<s>``, ``</s>`` and templates."""
    spec = byte_level_spec()
    for token, name in zip(spec["added_tokens"], ("<s>", "</s>"), strict=True):
        token["content"] = name
    spec["post_processor"] = template({"<s>": 264}, {"</s>": 265})
    (folder / "tokenizer.json").write_text(json.dumps(spec), encoding="utf-8")
    named = {"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": chat_template}
    (folder / "tokenizer_config.json").write_text(json.dumps(named | config), encoding="utf-8")
    paths = {name: folder / f"{name}.jinja" for name in files or {}}
    for name, path in paths.items():
        path.write_text((files or {})[name], encoding="utf-8")
    return Tokenizer.from_files(
        folder / "tokenizer.json",
        folder / "tokenizer_config.json",
        source="tok",
        chat_templates=paths,
    )


def refused(tokenizer: Tokenizer, messages: Any, **options: Any) -> str:
    with pytest.raises(TokenError) as error:
        tokenizer.render_chat(messages, **options)
    return str(error.value)
