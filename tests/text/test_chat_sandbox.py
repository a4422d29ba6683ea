"""Chat templates are untrusted programs: what they may not do, and the errors for their faults."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.chat_templates import ECHO, HI, refused, tokenizer

pytestmark = pytest.mark.usefixtures("as_users_call")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for %}", "is not valid Jinja, line 1: Expected an expression"),
        ("{{ messages | shout }}", "is not valid Jinja, line 1: No filter named 'shout'"),
        ("{% generation %}", "is not valid Jinja, line 1: Unexpected end of template"),
        ("{{ messages[0].name.first }}", r"failed on these messages \(UndefinedError: "),
        ("{{ 'a' + 1 }}", r"failed on these messages \(TypeError: "),
        ("{{ 1 / 0 }}", r"failed on these messages \(ZeroDivisionError: "),
    ],
)
def test_faulty_template(tmp_path: Path, source: str, message: str) -> None:
    assert re.match(f"the chat template of tok {message}", refused(tokenizer(tmp_path, source), HI))


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ lipsum.__globals__['os'].getcwd() }}",
        "{{ messages[0]['__class__'].__base__ }}",
        "{{ raise_exception.__globals__.json }}",
        "{{ messages.append(messages[0]) }}",
        "{{ messages[0].update(role='x') }}",
        "{% set ns = namespace(__html__=messages) %}",
        "{% set ns = namespace() %}{% set ns._x = 1 %}",
    ],
)
def test_the_sandbox_holds(tmp_path: Path, source: str) -> None:
    said = refused(tokenizer(tmp_path, source), HI)
    assert said.startswith("the chat template of tok tried something that templates may not do: ")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% for n in range(10 ** 9) %}{% endfor %}", "OverflowError: Range too big"),
        ("{{ dict.update(messages[0], role='x') }}", "has no attribute 'update'"),
        ("{% include '/etc/passwd' %}", "no loader for this environment"),
        ("{% import 'os' as os %}", "no loader for this environment"),
    ],
)
def test_nothing_is_reached_or_changed(tmp_path: Path, source: str, message: str) -> None:
    assert message in refused(tokenizer(tmp_path, source), HI)


def test_jinja2_is_asked_for_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "mi_ref.text.chat_sandbox", raising=False)
    monkeypatch.delattr("mi_ref.text.chat_sandbox", raising=False)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    said = refused(tokenizer(tmp_path, ECHO), HI)
    assert said.startswith("chat templates need jinja2, which is not installed: pip install 'mi_")


def test_jinja2_with_a_hole_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mi_ref.text.chat_sandbox.version", lambda name: "3.1.5")
    assert refused(tokenizer(tmp_path, ECHO), HI).startswith("jinja2 3.1.5 has known ways out")
    monkeypatch.setattr("mi_ref.text.chat_sandbox.version", lambda name: "3.2.0rc1")
    assert tokenizer(tmp_path, ECHO).render_chat(HI) == " Hi Hello.Bye"


def test_text_needs_no_jinja2(tmp_path: Path) -> None:
    tokenizer(tmp_path, ECHO)
    script = """
import pathlib, sys
from mi_ref.text.tokenizer import Tokenizer
Tokenizer.from_files(pathlib.Path(sys.argv[1]), source="tok").encode("Paris")
assert "jinja2" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", script, tmp_path / "tokenizer.json"], check=True)
