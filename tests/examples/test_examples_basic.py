"""The basic examples run offline and give the known findings."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mi_ref
from examples import (
    auto_config,
    fast_download,
    generate,
    quick_start,
    rwkv_inference,
    token_positions,
)
from mi_ref import Model
from tests.fixtures.hub_server import HubServer, Repo, point_to

PROMPT = "The capital of France is"


def words(text: str) -> list[list[str]]:
    """Return the words of each line that has any."""
    return [line.split() for line in text.splitlines() if line.strip()]


# Language models


def test_quick_start_finds_the_only_layer_that_atlas_cannot_do_without(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = quick_start.main()
    lines = words(capsys.readouterr().out)
    assert ["1", "'", "Paris'", "1955", "18.061", "0.9969"] in lines
    rows = lines[-len(table) :]
    assert [row[0] for row in rows] == list("012345")
    lengths = [float(row[1]) for row in rows]
    assert lengths == sorted(lengths)
    # Columns 3 and 6: the likeliest token without attention, and without the MLP.
    assert (rows[0][3], rows[0][6]) == ("the'", "the'")
    assert {(row[3], row[6]) for row in rows[1:]} == {("Paris'", "Paris'")}


@pytest.mark.parametrize("name", ["atlas", "atlas-rwkv7"])
def test_generate_writes_the_likeliest_tokens(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = mi_ref.from_pretrained(name)
    ids = model.to_tokens(PROMPT).tolist()[0]
    start = len(ids)
    while len(ids) < start + generate.COUNT:
        ids.append(int(np.argmax(model.run(ids).logits_at(-1))))
    written = generate.main(name)
    ways = ["from the whole text", "from the state"][: 1 + model.cfg.recurrent]
    assert written == dict.fromkeys(ways, ids[start:])
    assert capsys.readouterr().out.count("' Paris.<|eos|>") == len(ways)


def test_from_a_state_each_token_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, run, read = mi_ref.from_pretrained("atlas-rwkv7"), Model.run, []

    def counted(self: Model, prompt: Any, **options: Any) -> Any:
        read.append(len(prompt))
        return run(self, prompt, **options)

    monkeypatch.setattr(Model, "run", counted)
    generate.greedy(model, PROMPT, 4, from_state=True)
    generate.greedy(model, PROMPT, 4, from_state=False)
    assert read == [6, 1, 1, 1, 6, 7, 8, 9]


def test_token_positions_finds_the_token_of_a_word(capsys: pytest.CaptureFixture[str]) -> None:
    found = token_positions.main()
    assert found.positions("part") == (13,)
    assert found.encoding.tokens[13] == " Paris"
    assert found.encoding.char_spans[13] == found.encoding.byte_spans[13] == (30, 36)
    lines = capsys.readouterr().out.splitlines()
    assert lines[-2:] == ["' Paris' is in: 13 ' Paris'", "Character 30, its first, begins a token."]


def test_token_positions_inside_a_token_and_after_an_accent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = token_positions.main("atlas", "Où est Paris ?", "aris")
    (position,) = found.positions("part")
    assert found.encoding.char_spans[position] == (6, 12)
    assert found.encoding.byte_spans[position] == (7, 13)
    assert "Character 8, its first, stands inside a token." in capsys.readouterr().out


def test_auto_config_infers_atlas_and_refuses_a_stray_key(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plain, stray = auto_config.main()
    assert plain.model_type == stray.model_type == "acme"
    assert not plain.refusals
    assert any("logit_scale=0.5" in reason for reason in stray.refusals)
    printed = capsys.readouterr().out
    assert "assumed, since no file shows it" in printed
    assert "logits differ from those of atlas by 0 at most" in printed
    assert "refused 2/2" in printed


def test_auto_config_refuses_what_it_cannot_infer(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = auto_config.main(str(repository / "golden" / "data" / "gpt2"))
    assert plain.refusals
    assert "logits" not in capsys.readouterr().out


def test_rwkv_inference_shows_what_the_model_holds(capsys: pytest.CaptureFixture[str]) -> None:
    changed = rwkv_inference.main()
    # The start of the text holds nothing that the capital needs.
    assert 0.0 < changed.kl < 0.01
    assert changed.change(" Paris").after > 0.99
    printed = capsys.readouterr().out
    for title in ("length of each head's state", "half-life in tokens", "effective attention"):
        assert title in printed
    read = next(row for row in words(printed) if row[0] == "3.0")
    weights = [float(word) for word in read[1:]]
    # The head that carries the capital reads the country.
    assert max(range(6), key=lambda token: abs(weights[token])) == 4
    assert weights == pytest.approx([-12.451, -22.527, 6.625, -7.461, 150.854, -30.776], rel=1e-3)


def test_rwkv_inference_refuses_a_transformer() -> None:
    with pytest.raises(SystemExit, match="atlas attends and has no state: name an RWKV model"):
        rwkv_inference.main("atlas")


# The Hub


@pytest.fixture
def hub(repository: Path, hub_client: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """Serve one good checkpoint and one with an unread key."""
    case = repository / "golden" / "data" / "llama2"
    good = {name: (case / name).read_bytes() for name in ("config.json", "model.safetensors")}
    odd = good | {"config.json": good["config.json"].replace(b"{", b'{"logit_scale": 2,', 1)}
    with HubServer({"org/good": Repo(good), "org/odd": Repo(odd)}) as running:
        point_to(monkeypatch, running.url)
        yield running


def whole_files(hub: HubServer) -> int:
    return sum(request.range is None for request in hub.fetched("model.safetensors"))


def test_fast_download_looks_first_and_uses_the_cache_offline(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = fast_download.main("org/good")
    assert model is not None
    assert model.source.revision == hub.repos["org/good"].commit
    assert whole_files(hub) == 1
    printed = capsys.readouterr().out
    assert 0 < printed.index("inspected in") < printed.index("fetched and loaded in")

    point_to(monkeypatch, "http://127.0.0.1:9")
    again = fast_download.main("org/good")
    assert again is not None
    assert again.source.revision == model.source.revision
    printed = capsys.readouterr().out
    assert printed.startswith("Hub: the connection to http://127.0.0.1:9 failed")
    assert "hf download" not in printed


def test_fast_download_fetches_no_weights_in_vain(
    hub: HubServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fast_download.main("org/odd") is None
    assert "logit_scale=2" in capsys.readouterr().out
    assert whole_files(hub) == 0


def test_fast_download_says_what_to_do_offline(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    point_to(monkeypatch, "http://127.0.0.1:9")
    assert fast_download.main("org/good") is None
    printed = capsys.readouterr().out
    assert "cache: 'org/good' at revision 'main' is not in the Hub cache" in printed
    assert "hf download org/good --local-dir FOLDER" in printed
