"""Chats give HuggingFace's text and ids, or an error that says why not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from mi_ref import Model, TokenError
from mi_ref.errors import ArgumentError
from tests.fixtures.chat_templates import (
    CASES,
    CHATML,
    ECHO,
    HEADERS,
    HI,
    INST,
    TOOLS,
    TURNS,
    WEATHER,
    refused,
    said,
    tokenizer,
)
from tests.fixtures.tokenizer_specs import byte_level_spec, written

pytestmark = pytest.mark.usefixtures("as_users_call")


# Text


@pytest.mark.parametrize("case", CASES)
def test_text_of_a_chat(tmp_path: Path, case: str) -> None:
    chat = CASES[case]
    before = json.dumps(chat.messages)
    text = tokenizer(tmp_path, chat.template).render_chat(chat.messages, **chat.options)
    assert text == chat.expected
    assert json.dumps(chat.messages) == before


def test_text_is_not_escaped_and_keeps_other_alphabets(tmp_path: Path) -> None:
    text = "<b> & 'é' 日本 🦙"
    reader = tokenizer(tmp_path, "{{ messages[0].content }}{{ messages | tojson }}")
    assert reader.render_chat(said(("user", text))) == (
        f'{text}[{{"role": "user", "content": "{text}"}}]'
    )


def test_the_date_is_todays(tmp_path: Path) -> None:
    text = tokenizer(tmp_path, HEADERS).render_chat(HI)
    assert re.search(r"Today is \d\d \w+ 20\d\d\.<", text)


def test_special_tokens_of_a_template(tmp_path: Path) -> None:
    every = "{{ bos_token }}{{ eos_token }}{{ image_token }}{{ pad_token is defined }}"
    reader = tokenizer(tmp_path, every, image_token="<image>", pad_token=None)
    assert reader.render_chat(HI) == "<s></s><image>False"
    assert reader.render_chat(HI, bos_token="<b>") == "<b></s><image>False"


@pytest.mark.parametrize(
    ("config", "text"), [({}, "<|bos|>"), ({"bos_token": None}, ""), ({"bos_token": "is"}, "is")]
)
def test_bos_of_the_model_where_the_tokenizer_is_silent(
    tmp_path: Path, config: dict[str, Any], text: str
) -> None:
    chat = {"chat_template": "{{ bos_token }}{{ unk_token }}"}
    assert written(tmp_path, byte_level_spec(), chat | config, bos_id=264).render_chat(HI) == text


def test_what_nobody_passes_is_none_not_undefined(tmp_path: Path) -> None:
    shown = "{{ tools is none }} {{ documents is none }} {{ other is defined }}"
    assert tokenizer(tmp_path, shown).render_chat(HI) == "True True False"


# Which template


def test_files_take_the_place_of_the_configuration(tmp_path: Path) -> None:
    reader = tokenizer(tmp_path, "config {{ 1 }}", {"default": "file {{ 1 }}"})
    assert reader.render_chat(HI) == "file 1"
    named = [{"name": "rag", "template": "rag {{ 1 }}"}]
    only = tokenizer(tmp_path, named, {"tool_use": "{{ tools }}"})
    assert "tok has no chat template 'rag'; it has tool_use" in refused(only, HI, template="rag")


def test_one_of_several_templates(tmp_path: Path) -> None:
    named = {"default": "plain", "tool_use": "{{ tools | length }} tools", "rag": "documents"}
    several = tokenizer(tmp_path, [{"name": n, "template": t} for n, t in named.items()])
    assert several.render_chat(HI) == "plain"
    assert several.render_chat(HI, template="rag") == "documents"
    assert several.render_chat(HI, tools=[WEATHER]) == "1 tools"
    assert several.render_chat(HI, tools=[]) == "0 tools"
    assert several.render_chat(HI, template="default", tools=[]) == "plain"
    assert several.render_chat(HI, template="{{ 7 }}") == "7"
    assert refused(several, HI, template="tool-use") == (
        "tok has no chat template 'tool-use'; it has default, rag, tool_use. Pass one of these "
        "names, or Jinja of your own, as template="
    )


def test_no_template(tmp_path: Path) -> None:
    base = tokenizer(tmp_path)
    assert re.match(
        r"tok has no chat template, neither chat_template\.jinja nor 'chat_template' in "
        r"tokenizer_config\.json: it may be a base model.*pass Jinja of your own as template=$",
        refused(base, HI),
    )
    assert base.render_chat(HI, template=ECHO) == " Hi Hello.Bye"


@pytest.mark.parametrize("configured", [7, {"default": ECHO}, [ECHO], [{"name": "default"}]])
def test_malformed_configuration(tmp_path: Path, configured: object) -> None:
    said = refused(tokenizer(tmp_path, configured), HI)
    assert "of tok: expected a text or a list of {'name', 'template'}, got " in said


def test_damaged_file(tmp_path: Path) -> None:
    reader = tokenizer(tmp_path, None, {"default": ECHO})
    (tmp_path / "default.jinja").write_bytes(b"\xff")
    assert "default.jinja cannot be read as text: 'utf-8' codec" in refused(reader, HI)


# Mistakes


def test_every_fault_of_the_messages_at_once(tmp_path: Path) -> None:
    faulty = [
        "Hi",
        {"content": "Hi"},
        {"role": "user"},
        {"role": "user", "content": 7},
        {"role": "user", "content": [{"type": "text"}, "Hi", {"type": "image", "url": "x"}]},
        {"role": "assistant", "content": "Hi", "seen": {1, 2}},
    ]
    assert refused(tokenizer(tmp_path, ECHO), faulty, tools=["weather"], key={3}) == (
        "messages[0]: expected a dict with role and content, got a str; "
        "messages[1]['role']: expected a text, got None; "
        "messages[2] has neither content nor tool_calls; "
        "messages[3]['content']: expected a text or a list of parts, got a int; "
        "messages[4]['content'][0]['text']: expected a text, got None; "
        "messages[4]['content'][1]: expected a part such as {'type': 'text', 'text': 'Hi'}; "
        "messages[4]['content'][2] is of type 'image', but this model reads only text; "
        "messages[5]['seen']: expected plain data: Object of type set is not JSON serializable; "
        "tools[0]: expected a JSON schema as a dict, got a str; "
        "key=: expected plain data: Object of type set is not JSON serializable. "
        "A chat is a list such as [{'role': 'user', 'content': 'Hi'}]"
    )


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], "messages is empty. A chat is a list"),
        ("Hi", "messages: expected a list of messages, got a str"),
        ({"role": "user", "content": "Hi"}, "messages: expected a list of messages, got a dict"),
        ([HI, HI], r"messages\[0\]: expected a dict .*, got a list; messages\[1\]: .*, got a list"),
    ],
)
def test_what_is_no_chat(tmp_path: Path, messages: Any, message: str) -> None:
    assert re.match(message, refused(tokenizer(tmp_path, ECHO), messages))


def test_tools_that_are_none(tmp_path: Path) -> None:
    reader = tokenizer(tmp_path, TOOLS)
    assert "tools: expected a list of JSON schemas, got a function" in refused(
        reader, HI, tools=said
    )


@pytest.mark.parametrize(
    ("source", "messages", "message"),
    [
        (TURNS, said(("system", "x"), ("user", "y")), "there is no role 'system' here"),
        (TURNS, said(("user", "x"), ("user", "y")), "turn 2 is by user"),
        (INST, said(("assistant", "x")), "user and assistant must take turns"),
    ],
)
def test_the_template_refuses(tmp_path: Path, source: str, messages: Any, message: str) -> None:
    assert refused(tokenizer(tmp_path, source), messages) == (
        f"the chat template of tok refuses these messages: {message}"
    )


def test_what_the_template_would_ignore(tmp_path: Path) -> None:
    reader = tokenizer(tmp_path, CHATML)
    assert refused(reader, HI, enable_thinkng=False, tools=[WEATHER]) == (
        "the chat template of tok does not read enable_thinkng, tools, so it would have no effect; "
        "it reads add_generation_prompt, enable_thinking, messages. Leave it out"
    )
    assert reader.render_chat(HI, tools=[]) == reader.render_chat(HI)


# Ids


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """The bundled model with a chat template beside its tokenizer."""
    folder = tmp_path_factory.mktemp("chat")
    for file in (Path(mi_ref.__file__).parent / "models" / "atlas").iterdir():
        shutil.copy(file, folder)
    turns = "{% for m in messages %}{{ bos_token }}{{ m.role }}: {{ m.content }}{% endfor %}"
    prompt = "{% if add_generation_prompt %}{{ eos_token }}{% endif %}"
    (folder / "chat_template.jinja").write_text(turns + prompt, encoding="utf-8")
    return mi_ref.from_pretrained(folder)


def test_ids_are_those_of_the_text_and_nothing_around_it(tmp_path: Path) -> None:
    reader = tokenizer(tmp_path, INST)
    text = reader.render_chat(HI)
    ids = reader.encode(text, add_special_tokens=False).ids
    assert (ids[0], ids.count(264), ids[-1], ids.count(265)) == (264, 2, 60, 1)
    assert reader.encode(text).ids == (264, *ids, 265)


def test_a_chat_is_ready_to_run(model: Model) -> None:
    tokens = model.chat(HI)
    assert model.to_string(tokens) == [
        "<|bos|>user:  Hi <|bos|>assistant: Hello.<|bos|>user: Bye<|eos|>"
    ]
    bos, eos = model.tokenizer.bos_id, model.tokenizer.eos_id
    ids = tokens.tolist()[0]
    assert (ids[0], ids.count(bos), ids[-1]) == (bos, 3, eos)
    assert model.to_tokens(HI, chat=True).tolist() == tokens.tolist()
    assert model.chat(HI, add_generation_prompt=False).tolist() == [ids[:-1]]
    assert model.chat(HI, template="{{ bos_token }} Paris").tolist() == [
        [bos, model.to_single_token(" Paris")]
    ]
    assert np.asarray(model.run(tokens).logits).shape == (1, len(ids), model.cfg.d_vocab)


def test_bos_is_the_templates_business(model: Model) -> None:
    with pytest.raises(
        ArgumentError, match="prepend_bos=True with chat=True: the chat template writ"
    ):
        model.to_tokens(HI, prepend_bos=True, chat=True)
    with pytest.raises(TokenError, match="messages: expected a list of messages, got a str"):
        model.to_tokens("Hi", chat=True)
